//! What the API takes.

use serde_json::{Value, json};
use vswitch_control::object::manifest::from_value;

/// The name of the spec.
pub(crate) const END_PORTS: &str = "Netpol API should support creating NetworkPolicy API with endport field";

/// Each step of it: what is refused and what is taken.
pub(crate) fn end_ports() -> &'static str {
    let create = |port: Value| {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"namespace": "x", "name": "e2e-example-netpol-endport-validate"},
            "spec": {"podSelector": {"matchLabels": {"pod-name": "test-pod"}}, "egress": [{"ports": [port]}]},
        });
        from_value("spec", "default", 1, policy).map_err(|error| error.to_string())
    };
    for (wrong, port) in [
        ("without a port", json!({"endPort": 20000})),
        ("after a name", json!({"port": "serve-80", "endPort": 20000})),
        ("smaller than the port", json!({"port": 30000, "endPort": 20000})),
    ] {
        let error = create(port).expect_err(wrong);
        assert!(error.contains("spec.egress[0].ports[0].endPort: "), "{wrong}: {error}");
    }
    for port in [20000, 10000] {
        let taken = create(json!({"port": port, "endPort": 20000}));
        assert!(taken.is_ok(), "{port}: {taken:?}");
    }
    END_PORTS
}
