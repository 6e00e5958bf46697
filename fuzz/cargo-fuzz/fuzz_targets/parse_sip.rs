#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzz::sip::parse_sip(data));
