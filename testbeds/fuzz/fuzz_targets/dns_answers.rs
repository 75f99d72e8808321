//! What comes from port 53: nothing panics, and what is found is what was asked for.
#![no_main]

use vswitch_datapath::dns::named_addresses;
use vswitch_datapath::testing::dns::{Record, answer, query};
use vswitch_fuzz::seed;

libfuzzer_sys::fuzz_target!(
    init: {
        let records = [
            Record::alias("www.example.org", 60, "edge.example.net"),
            Record::address("edge.example.net", 60, "203.0.113.7"),
            Record::address("edge.example.net", 60, "2001:db8::7"),
        ];
        seed("answer", &answer("www.example.org", &records));
        seed("empty", &answer("www.example.org", &[]));
        seed("query", &query("www.example.org"));
    },
    |data: &[u8]| {
        let end = |name: &vswitch_model::DomainName| name.as_str().ends_with(".org");
        if let Ok(found) = named_addresses(data, end) {
            assert!(found.iter().all(|it| end(&it.name)));
        }
    }
);
