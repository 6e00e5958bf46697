#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::connect::ops_connect_client(data));
