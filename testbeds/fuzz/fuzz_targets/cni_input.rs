//! Environment and standard input of the CNI plugins: whatever is in them, an answer or an error, never a panic.
#![no_main]

use vswitch_fuzz::seed;

libfuzzer_sys::fuzz_target!(
    init: {
        seed(
            "add",
            br#"IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b
{"cniVersion":"1.1.0","name":"n","type":"vswitch-cni","mtu":1450,"agentSocket":"/a","ipam":{"type":"vswitch-ipam"},"cni.dev/valid-attachments":[{"containerID":"c","ifname":"eth0"}]}"#,
        );
        seed(
            "ipam",
            br#"
{"cniVersion":"1.1.0","ips":[{"address":"10.0.0.1/32"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["10.0.0.9"]}}"#,
        );
    },
    |data: &[u8]| vswitch_cni::fuzz_input(data)
);
