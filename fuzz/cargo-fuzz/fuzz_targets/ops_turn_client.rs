#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::turn::ops_turn_client(data));
