//! Large packets into every encapsulation: what leaves fits its way, is right by another parser, and adds up to what was sent.
#![no_main]

use vswitch_fuzz::seed;

libfuzzer_sys::fuzz_target!(
    init: {
        // Both families, TCP and UDP, by each way; 20,000 bytes in pieces of 1000.
        for what in 0..8 {
            for way in 0..7 {
                let input = [what, way, 0x4e, 0x20, 0x03, 0xe8, 0x11, 64, 0, 7, 0xff, 0xff, 0xf0, 0, 0x18, 0, 1];
                seed(&format!("{what}-{way}"), &input);
            }
        }
    },
    |data: &[u8]| vswitch_datapath::testing::fuzz_large(data)
);
