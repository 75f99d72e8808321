//! Whole invocations, as a container runtime makes them: real binaries, real namespaces, a fake agent.

#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![expect(unreachable_pub, reason = "nobody uses a test from outside")]

mod support;

use serde_json::{Value, json};
use support::{Node, inside, ip, node, run};
use tonic::Status;

fn with(mut config: Value, field: &str, value: Value) -> Value {
    config[field] = value;
    config
}

#[test]
fn a_pod_is_attached_checked_and_gone() {
    let Some(node) = node() else { return };
    let config = node.config();
    let added = node.cni("ADD", &config);
    assert!(added.succeeded, "{added:?}");
    let host = node.host_ends();
    assert_eq!(host.len(), 1);

    assert_result(&added.json, &host[0], &node);
    assert_inside_of_the_pod(&node.pod, &added.json["interfaces"][1]["mac"]);
    assert_host_end(&node.host, &host[0]);

    let endpoint = node.agent.endpoint("c1/eth0");
    assert_eq!((&*endpoint.namespace, &*endpoint.pod, &*endpoint.uid), ("voip", "relay", "u1"));
    assert_eq!((&endpoint.host_interface, endpoint.mtu), (&host[0], 1430));
    assert_eq!(endpoint.addresses, ["10.244.0.5", "fd00:244::5"]);
    assert_eq!(endpoint.netns, format!("/run/netns/{}", node.pod));

    let after = with(config.clone(), "prevResult", added.json);
    let checked = node.cni("CHECK", &after);
    assert!(checked.succeeded, "{checked:?}");

    assert!(node.cni("DEL", &after).succeeded);
    node.assert_nothing_left();
    assert!(node.cni("DEL", &after).succeeded, "again");
    assert!(node.cni("DEL", &config).succeeded, "and without the result");
}

fn assert_result(result: &Value, host: &str, node: &Node) {
    let mac = &result["interfaces"][1]["mac"];
    assert_eq!(
        *result,
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [
                {"name": host, "mac": "ee:ee:ee:ee:ee:ee", "mtu": 1430},
                {"name": "eth0", "mac": mac, "mtu": 1430, "sandbox": format!("/run/netns/{}", node.pod)},
            ],
            "ips": [
                {"interface": 1, "address": "10.244.0.5/32", "gateway": "169.254.1.1"},
                {"interface": 1, "address": "fd00:244::5/128", "gateway": "fe80::ecee:eeff:feee:eeee"},
            ],
            "routes": [
                {"dst": "0.0.0.0/0", "gw": "169.254.1.1"},
                {"dst": "::/0", "gw": "fe80::ecee:eeff:feee:eeee"},
            ],
        })
    );
}

fn assert_inside_of_the_pod(pod: &str, mac: &Value) {
    let eth0 = &ip(pod, &["addr", "show", "dev", "eth0"])[0];
    assert_eq!((&eth0["address"], &eth0["mtu"]), (mac, &json!(1430)));
    let addresses: Vec<_> =
        eth0["addr_info"].as_array().unwrap().iter().filter(|a| a["scope"] == "global").collect();
    assert_eq!((&addresses[0]["local"], &addresses[0]["prefixlen"]), (&json!("10.244.0.5"), &json!(32)));
    assert_eq!((&addresses[1]["local"], &addresses[1]["prefixlen"]), (&json!("fd00:244::5"), &json!(128)));
    assert_eq!(addresses[1].get("tentative"), None, "usable at once");
    let lo = &ip(pod, &["link", "show", "dev", "lo"])[0];
    assert!(lo["flags"].as_array().unwrap().contains(&json!("UP")));

    let routes = ip(pod, &["-4", "route"]);
    let route = |dst: &str| routes.as_array().unwrap().iter().find(|route| route["dst"] == dst).unwrap();
    assert_eq!(route("169.254.1.1")["scope"], "link");
    assert_eq!(route("default")["gateway"], "169.254.1.1");
    let routes = ip(pod, &["-6", "route"]);
    let default = routes.as_array().unwrap().iter().find(|route| route["dst"] == "default").unwrap();
    assert_eq!(default["gateway"], "fe80::ecee:eeff:feee:eeee");

    let features = inside(pod, &["ethtool", "-k", "eth0"]);
    let state = |name: &str| features.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap().trim();
    assert_eq!(state("tx-checksumming:"), "off");
    assert_eq!(state("generic-receive-offload:"), "on");
    // Kernels before 5.12 have no such file; those that do have it set.
    let threaded = inside(pod, &["sh", "-c", "cat /sys/class/net/eth0/threaded 2>/dev/null || echo 1"]);
    assert_eq!(threaded.trim(), "1");
}

fn assert_host_end(host: &str, name: &str) {
    let link = &ip(host, &["addr", "show", "dev", name])[0];
    assert_eq!((&link["address"], &link["addr_info"]), (&json!("ee:ee:ee:ee:ee:ee"), &json!([])));
    let flags = link["flags"].as_array().unwrap();
    assert!(flags.contains(&json!("UP")) && flags.contains(&json!("NOARP")), "{flags:?}");
    assert_eq!(link["ifalias"], "vswitch-cni/pods/c1/eth0");
    for (key, value) in [
        ("ipv4/conf/{}/rp_filter", "1"),
        ("ipv4/conf/{}/forwarding", "0"),
        ("ipv6/conf/{}/disable_ipv6", "1"),
    ] {
        let path = format!("/proc/sys/net/{}", key.replace("{}", name));
        assert_eq!(inside(host, &["cat", &path]).trim(), value, "{path}");
    }
}

#[test]
fn a_pod_with_a_tun_is_attached_checked_and_gone() {
    let Some(node) = node() else { return };
    node.agent.choose_tun();
    let config = node.config();
    let added = node.cni("ADD", &config);
    assert!(added.succeeded, "{added:?}");
    assert_eq!(
        added.json,
        json!({
            "cniVersion": "1.1.0",
            "interfaces": [{"name": "eth0", "mtu": 1430, "sandbox": format!("/run/netns/{}", node.pod)}],
            "ips": [
                {"interface": 0, "address": "10.244.0.5/32"},
                {"interface": 0, "address": "fd00:244::5/128"},
            ],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
        })
    );
    let tuns = || ip(&node.pod, &["link", "show", "type", "tun"]);
    assert_eq!((node.host_ends(), tuns()[0]["ifname"].clone()), (vec![], json!("eth0")));
    for family in ["-4", "-6"] {
        let routes = ip(&node.pod, &[family, "route"]);
        let default = routes.as_array().unwrap().iter().find(|route| route["dst"] == "default").unwrap();
        assert_eq!((&default["dev"], default.get("gateway")), (&json!("eth0"), None), "{family}");
    }
    let after = with(config.clone(), "prevResult", added.json);
    let checked = node.cni("CHECK", &after);
    assert!(checked.succeeded, "{checked:?}");
    run("ip", &["-n", &node.pod, "route", "del", "default"]);
    let checked = node.cni("CHECK", &after);
    assert!(checked.details().contains("no route to 0.0.0.0/0 on the link on eth0"), "{checked:?}");

    assert!(node.cni("DEL", &after).succeeded);
    assert_eq!(tuns(), json!([]));
    node.assert_nothing_left();
    assert!(node.cni("DEL", &config).succeeded, "again, and without the result");

    // Killed half way.
    node.agent.hang_in_attach();
    let mut child = node.spawn("vswitch-cni", "ADD", "c1", &config);
    node.agent.wait_for("attach");
    child.kill().unwrap();
    child.wait().unwrap();
    node.agent.heal();
    assert!(node.cni("ADD", &config).succeeded, "once more");
    assert!(node.cni("DEL", &config).succeeded);

    node.agent.fail("attach", Status::unavailable("the engine is away"));
    assert_eq!(node.cni("ADD", &config).code(), 11);
    assert_eq!(tuns(), json!([]));
    node.assert_nothing_left();
}

#[test]
fn check_names_what_differs() {
    let Some(node) = node() else { return };
    let added = node.cni("ADD", &node.config());
    let config = with(node.config(), "prevResult", added.json);
    let host = node.host_ends().remove(0);
    let pod = &node.pod;
    let breakages: [(&[&str], &[&str], &str); 5] = [
        (
            &["-n", pod, "route", "del", "default"],
            &["-n", pod, "route", "add", "default", "via", "169.254.1.1", "dev", "eth0"],
            "0.0.0.0/0",
        ),
        (
            &["-n", pod, "addr", "del", "fd00:244::5/128", "dev", "eth0"],
            &["-n", pod, "addr", "add", "fd00:244::5/128", "dev", "eth0"],
            "fd00:244::5",
        ),
        (
            &["-n", pod, "link", "set", "eth0", "mtu", "1300"],
            &["-n", pod, "link", "set", "eth0", "mtu", "1430"],
            "MTU 1300",
        ),
        (
            &["netns", "exec", pod, "ethtool", "-K", "eth0", "tx", "on"],
            &["netns", "exec", pod, "ethtool", "-K", "eth0", "tx", "off"],
            "tx-checksum-ip-generic",
        ),
        (
            &["-n", &node.host, "link", "set", &host, "down"],
            &["-n", &node.host, "link", "set", &host, "up"],
            &host,
        ),
    ];
    for (breaks, mends, named) in breakages {
        run("ip", breaks);
        let checked = node.cni("CHECK", &config);
        assert_eq!(checked.code(), 102, "{named}: {checked:?}");
        assert!(checked.details().contains(named), "{named}: {checked:?}");
        run("ip", mends);
        if named == host {
            // Setting the host end down took the IPv6 default route of the pod with it, as carrier does.
            run(
                "ip",
                &[
                    "-n",
                    pod,
                    "-6",
                    "route",
                    "replace",
                    "default",
                    "via",
                    "fe80::ecee:eeff:feee:eeee",
                    "dev",
                    "eth0",
                ],
            );
        }
        let checked = node.cni("CHECK", &config);
        assert!(checked.succeeded, "after mending {named}: {checked:?}");
    }
    assert_eq!(node.cni("CHECK", &node.config()).code(), 7, "without prevResult");
    node.agent.fail("check", Status::failed_precondition("another MAC"));
    assert_eq!(node.cni("CHECK", &config).code(), 102);
}

#[test]
fn results_come_in_the_version_asked_for() {
    let Some(node) = node() else { return };
    for (version, family) in
        [("0.3.0", json!("4")), ("0.3.1", json!("4")), ("0.4.0", json!("4")), ("1.0.0", Value::Null)]
    {
        let config = with(node.config(), "cniVersion", json!(version));
        let added = node.cni("ADD", &config);
        assert!(added.succeeded, "{version}: {added:?}");
        assert_eq!(added.json["cniVersion"], version);
        assert_eq!(added.json["ips"][0]["version"], family, "{version}");
        let config = with(config, "prevResult", added.json);
        if !version.starts_with("0.3") {
            assert!(node.cni("CHECK", &config).succeeded, "{version}");
        }
        assert!(node.cni("DEL", &config).succeeded, "{version}");
    }
    assert_eq!(node.cni("ADD", &with(node.config(), "cniVersion", json!("0.2.0"))).code(), 1);
    assert_eq!(node.cni("STATUS", &with(node.config(), "cniVersion", json!("1.0.0"))).code(), 1);
    let versions = node.cni("VERSION", &json!({"cniVersion": "1.1.0"}));
    assert_eq!(versions.json["supportedVersions"], json!(["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    node.assert_nothing_left();
}

#[test]
fn a_failed_add_leaves_nothing() {
    let Some(node) = node() else { return };
    let config = node.config();

    node.agent.not_ready("the store is not synced");
    let answer = node.cni("ADD", &config);
    assert_eq!(
        (answer.code(), answer.details().contains("the store is not synced")),
        (11, true),
        "{answer:?}"
    );
    node.assert_nothing_left();
    node.agent.heal();

    for (call, status, code) in [
        ("assign_addresses", Status::resource_exhausted("pool default (10.244.0.0/16) is full"), 11),
        ("attach", Status::deadline_exceeded("policy not in force after 20 s"), 11),
        ("attach", Status::invalid_argument("addresses[0]: is another pod's"), 101),
    ] {
        let words = status.message().to_owned();
        node.agent.fail(call, status);
        let answer = node.cni("ADD", &config);
        assert_eq!(answer.code(), code, "{call}: {answer:?}");
        assert!(answer.details().contains(&words), "the first error is the one reported: {answer:?}");
        node.assert_nothing_left();
        node.agent.heal();
    }

    // The agent also refuses to let go while undoing: what can go, goes, and the first error is still the one told.
    node.agent.fail("attach", Status::unavailable("the engine is away"));
    node.agent.fail("detach", Status::internal("broken"));
    let answer = node.cni("ADD", &config);
    assert!(answer.details().contains("the engine is away"), "{answer:?}");
    node.assert_nothing_left();
    node.agent.heal();

    run("ip", &["-n", &node.pod, "tuntap", "add", "eth0", "mode", "tun"]);
    let answer = node.cni("ADD", &config);
    assert_eq!((answer.code(), answer.details().contains("eth0")), (4, true), "{answer:?}");
    node.assert_nothing_left();
    run("ip", &["-n", &node.pod, "link", "del", "eth0"]);

    let narrow = with(config.clone(), "mtu", json!(1000));
    assert_eq!(node.cni("ADD", &narrow).code(), 7);
    let unknown = with(config.clone(), "bridge", json!("cni0"));
    assert_eq!(node.cni("ADD", &unknown).code(), 2);
    let no_ipam = with(config.clone(), "ipam", json!({"type": "nowhere"}));
    assert_eq!(node.cni("ADD", &no_ipam).code(), 7);
    node.assert_nothing_left();
    assert!(node.cni("ADD", &config).succeeded, "and then it works");
}

#[test]
fn an_add_killed_half_way_is_cleaned_up() {
    let Some(node) = node() else { return };
    let config = node.config();
    let kill_in_attach = || {
        node.agent.hang_in_attach();
        let mut child = node.spawn("vswitch-cni", "ADD", "c1", &config);
        node.agent.wait_for("attach");
        child.kill().unwrap();
        child.wait().unwrap();
        node.agent.heal();
        assert_eq!(node.host_ends().len(), 1, "killed with the pair standing");
    };
    kill_in_attach();
    let added = node.cni("ADD", &config);
    assert!(added.succeeded, "{added:?}");
    assert_eq!((node.host_ends().len(), node.agent.attached().len()), (1, 1));
    assert!(node.cni("CHECK", &with(config.clone(), "prevResult", added.json)).succeeded);
    assert!(node.cni("DEL", &config).succeeded);
    node.assert_nothing_left();

    kill_in_attach();
    assert!(node.cni("DEL", &config).succeeded);
    node.assert_nothing_left();
}

#[test]
fn an_agent_that_is_killed_in_the_middle_of_an_add_is_to_be_tried_again() {
    let Some(mut node) = node() else { return };
    node.agent.hang_in_attach();
    let child = node.spawn("vswitch-cni", "ADD", "c1", &node.config());
    node.agent.wait_for("attach");
    node.agent.stop();
    let output = child.wait_with_output().unwrap();
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(error["code"], 11, "{error}");
    assert!(error["details"].as_str().unwrap().contains("the agent went away meanwhile"), "{error}");
    assert_eq!(node.host_ends(), [""; 0]);
}

#[test]
fn del_works_without_the_namespace_and_says_so_without_the_agent() {
    let Some(mut node) = node() else { return };
    let config = node.config();
    assert!(node.cni("ADD", &config).succeeded);
    run("ip", &["netns", "delete", &node.pod]);
    assert!(node.cni("DEL", &config).succeeded);
    assert_eq!((node.host_ends().len(), node.agent.attached().len(), node.agent.assigned().len()), (0, 0, 0));
    assert_eq!(node.cni("ADD", &config).code(), 8);

    run("ip", &["netns", "add", &node.pod]);
    assert!(node.cni("ADD", &config).succeeded);
    node.agent.stop();
    let words = format!("vswitch-agent does not answer on {}", node.agent.socket().display());
    for (command, code) in [("ADD", 11), ("DEL", 11), ("STATUS", 50)] {
        let answer = node.cni(command, &config);
        assert_eq!(answer.code(), code, "{command}");
        assert!(answer.details().contains(&words), "{command}: {answer:?}");
    }
    assert_eq!(node.host_ends(), [""; 0], "what could go without the agent is gone");
}

#[test]
fn garbage_is_what_is_not_in_the_list() {
    let Some(node) = node() else { return };
    assert!(node.cni("ADD", &node.config()).succeeded);
    let kept = node.host_ends();
    // What another network's plugin, and an ADD nobody remembers, left: host ends with an alias.
    for (name, alias) in
        [("vsw0123456789a", "vswitch-cni/pods/gone/eth0"), ("vsw0123456789b", "vswitch-cni/other/gone/eth0")]
    {
        run("ip", &["-n", &node.host, "tuntap", "add", name, "mode", "tun"]);
        run("ip", &["-n", &node.host, "link", "set", name, "alias", alias]);
    }
    let strangers = || -> Vec<String> {
        let links = ip(&node.host, &["link", "show", "type", "tun"]);
        links.as_array().unwrap().iter().map(|link| link["ifname"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(node.cni("GC", &node.config()).code(), 7, "without a list nothing is garbage");
    assert_eq!(strangers().len(), 2);

    let list = |valid: Value| with(node.config(), "cni.dev/valid-attachments", valid);
    let answer = node.cni("GC", &list(json!([{"containerID": "c1", "ifname": "eth0"}])));
    assert!(answer.succeeded, "{answer:?}");
    assert_eq!(strangers(), ["vsw0123456789b"]);
    assert_eq!((node.host_ends(), node.agent.attached()), (kept, vec!["c1/eth0".to_owned()]));

    let of_another = with(list(json!([])), "name", json!("other"));
    assert!(node.cni("GC", &of_another).succeeded);
    assert_eq!(
        (node.agent.attached().len(), node.agent.assigned().len()),
        (1, 1),
        "it is not of that network"
    );
    assert_eq!((node.host_ends().len(), strangers().len()), (1, 0));

    assert!(node.cni("GC", &list(json!([]))).succeeded);
    node.assert_nothing_left();
}

#[test]
fn status_is_the_agents() {
    let Some(node) = node() else { return };
    assert!(node.cni("STATUS", &node.config()).succeeded);
    node.agent.not_ready("the engine is away");
    let answer = node.cni("STATUS", &node.config());
    assert_eq!((answer.code(), answer.details()), (50, "vswitch-agent is not ready: the engine is away"));
    let ipam = node.plugin("vswitch-ipam", "STATUS", "c1", &node.config());
    assert_eq!(ipam.code(), 50);
}

#[test]
fn any_ipam_plugin_will_do() {
    let Some(node) = node() else { return };
    // As host-local answers, in the layout of before 1.0, and remembering what it was asked.
    node.install(
        "host-local",
        r#"here=$(dirname "$0"); echo "$CNI_COMMAND $CNI_CONTAINERID $(cat)" >> "$here/asked"
[ "$CNI_COMMAND" = ADD ] || exit 0
echo '{"cniVersion":"0.4.0","ips":[{"version":"4","address":"10.9.0.7/24","gateway":"10.9.0.1"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.9.0.1"]}}'"#,
    );
    let config = with(node.config(), "cniVersion", json!("0.4.0"));
    let config = with(config, "ipam", json!({"type": "host-local", "subnet": "10.9.0.0/24"}));
    let added = node.cni("ADD", &config);
    assert!(added.succeeded, "{added:?}");
    assert_eq!(added.json["ips"][0]["address"], "10.9.0.7/32");
    assert_eq!(added.json["dns"]["nameservers"], json!(["10.9.0.1"]));
    assert!(node.cni("CHECK", &with(config.clone(), "prevResult", added.json)).succeeded);
    assert!(node.cni("DEL", &config).succeeded);
    let asked = std::fs::read_to_string(node.agent.directory().join("bin/asked")).unwrap();
    let asked: Vec<_> = asked.lines().collect();
    assert!(asked[0].starts_with("ADD c1 {") && asked[0].contains(r#""subnet":"10.9.0.0/24""#), "{asked:?}");
    assert!(asked[1].starts_with("CHECK c1") && asked[1].contains(r#""version":"4""#), "{asked:?}");
    assert!(asked[2].starts_with("DEL c1"), "{asked:?}");
    assert!(!node.agent.calls().contains(&"assign_addresses".to_owned()));

    for (answer, code) in [
        (r#"echo '{"code":999,"msg":"no","details":"range is full"}'; exit 1"#, 999),
        ("echo nonsense; exit 1", 5),
        ("echo nonsense", 6),
        (r#"echo '{"cniVersion":"0.4.0","ips":[]}'"#, 7),
    ] {
        node.install("host-local", &format!(r#"[ "$CNI_COMMAND" = ADD ] || exit 0; {answer}"#));
        let refused = node.cni("ADD", &config);
        assert_eq!(refused.code(), code, "{answer}: {refused:?}");
        node.assert_nothing_left();
    }
}

#[test]
fn our_ipam_serves_other_network_plugins() {
    let Some(node) = node() else { return };
    let config = json!({
        "cniVersion": "1.1.0", "name": "other", "type": "bridge", "bridge": "cni0",
        "ipam": {"type": "vswitch-ipam", "agentSocket": node.agent.socket()},
    });
    let ipam = |command: &str, config: &Value| node.plugin("vswitch-ipam", command, "c9", config);
    let added = ipam("ADD", &config);
    assert_eq!(
        added.json,
        json!({"cniVersion": "1.1.0", "ips": [{"address": "10.244.0.5/32"}, {"address": "fd00:244::5/128"}]})
    );
    let after = with(config.clone(), "prevResult", added.json);
    assert!(ipam("CHECK", &after).succeeded);
    let other = with(config.clone(), "prevResult", json!({"ips": [{"address": "10.244.0.6/32"}]}));
    assert_eq!(ipam("CHECK", &other).code(), 102);
    assert!(ipam("DEL", &config).succeeded);
    assert!(ipam("DEL", &config).succeeded, "again");
    assert_eq!(ipam("CHECK", &after).code(), 102);
    assert_eq!(node.agent.assigned(), [""; 0]);
}
