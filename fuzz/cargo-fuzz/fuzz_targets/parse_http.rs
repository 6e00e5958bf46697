#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::connect::parse_http(data));
