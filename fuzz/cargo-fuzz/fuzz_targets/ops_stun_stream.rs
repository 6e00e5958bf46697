#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::stun::ops_stun_stream(data));
