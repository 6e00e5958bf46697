#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::sip::ops_sip_edge(data));
