//! A node for the plugins: two network namespaces, a fake agent, and the way a runtime executes a plugin.

pub mod agent;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};

pub use agent::FakeAgent;

/// The namespaces of one test, deleted with it.
pub struct Node {
    pub host: String,
    pub pod: String,
    pub agent: FakeAgent,
    plugins: PathBuf,
}

/// What a plugin answered.
#[derive(Debug)]
pub struct Answer {
    pub succeeded: bool,
    /// Standard output, read as JSON; null if empty.
    pub json: Value,
}

impl Answer {
    /// The error's code; 0 for a success.
    pub fn code(&self) -> u64 {
        if self.succeeded { 0 } else { self.json["code"].as_u64().unwrap() }
    }

    pub fn details(&self) -> &str {
        self.json["details"].as_str().unwrap_or_default()
    }
}

/// A node, or None where the tests may not make namespaces. With `CI` set that is a failure.
pub fn node() -> Option<Node> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "tests of whole invocations need root, and CI promises it");
        eprintln!("SKIPPED: making network namespaces needs root");
        return None;
    }
    let unique = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let agent = FakeAgent::start();
    // Where the plugins are built, and where a test may put an IPAM plugin of its own in front of them.
    let plugins = agent.directory().join("bin");
    std::fs::create_dir(&plugins).unwrap();
    for (name, built) in [
        ("vswitch-cni", env!("CARGO_BIN_EXE_vswitch-cni")),
        ("vswitch-ipam", env!("CARGO_BIN_EXE_vswitch-ipam")),
    ] {
        std::os::unix::fs::symlink(built, plugins.join(name)).unwrap();
    }
    let node = Node { host: format!("cni{unique}h"), pod: format!("cni{unique}p"), agent, plugins };
    run("ip", &["netns", "add", &node.host]);
    run("ip", &["netns", "add", &node.pod]);
    Some(node)
}

impl Drop for Node {
    fn drop(&mut self) {
        for netns in [&self.host, &self.pod] {
            // One test deletes the pod's itself.
            let _ = Command::new("ip").args(["netns", "delete", netns]).stderr(Stdio::null()).status();
        }
    }
}

impl Node {
    pub fn config(&self) -> Value {
        json!({
            "cniVersion": "1.1.0", "name": "pods", "type": "vswitch-cni", "agentSocket": self.agent.socket(),
            "ipam": {"type": "vswitch-ipam"},
        })
    }

    /// Executes `vswitch-cni` for container `c1` and interface `eth0`.
    pub fn cni(&self, command: &str, config: &Value) -> Answer {
        self.plugin("vswitch-cni", command, "c1", config)
    }

    pub fn plugin(&self, plugin: &str, command: &str, container: &str, config: &Value) -> Answer {
        let child = self.spawn(plugin, command, container, config);
        let output = child.wait_with_output().unwrap();
        let json = if output.stdout.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&output.stdout)
                .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
        };
        Answer { succeeded: output.status.success(), json }
    }

    /// Starts a plugin in the node's namespace. `ip netns exec` becomes the plugin: the child's id is the plugin's.
    pub fn spawn(&self, plugin: &str, command: &str, container: &str, config: &Value) -> Child {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &self.host])
            .arg(self.plugins.join(plugin))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", format!("/run/netns/{}", self.pod))
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", format!("/nonexistent:{}", self.plugins.display()))
            .env("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=voip;K8S_POD_NAME=relay;K8S_POD_UID=u1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(config.to_string().as_bytes()).unwrap();
        child
    }

    /// Puts an IPAM plugin beside ours: a shell script.
    pub fn install(&self, name: &str, script: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.plugins.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// Names of the veth host ends on the node.
    pub fn host_ends(&self) -> Vec<String> {
        let links = ip(&self.host, &["link", "show", "type", "veth"]);
        links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
    }

    /// Nothing of any ADD is there: no interface, no address, no endpoint.
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.host_ends(), [""; 0]);
        assert_eq!(ip(&self.pod, &["link", "show", "type", "veth"]), json!([]));
        assert_eq!(self.agent.attached(), [""; 0]);
        assert_eq!(self.agent.assigned(), [""; 0]);
    }
}

/// `ip -j` in a namespace.
pub fn ip(netns: &str, args: &[&str]) -> Value {
    let output = run("ip", &[&["-n", netns, "-d", "-j"], args].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    // It prints nothing at all for an empty list of some kinds, and {} for links that a filter left out.
    let value: Value = if text.trim().is_empty() { json!([]) } else { serde_json::from_str(&text).unwrap() };
    value.as_array().unwrap().iter().filter(|entry| *entry != &json!({})).cloned().collect()
}

/// A command in a namespace, with that namespace's sysfs; what it printed.
pub fn inside(netns: &str, command: &[&str]) -> String {
    let output = run("ip", &[&["netns", "exec", netns], command].concat());
    String::from_utf8(output.stdout).unwrap()
}

pub fn run(program: &str, args: &[&str]) -> Output {
    let output =
        Command::new(program).args(args).output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {words}");
    output
}
