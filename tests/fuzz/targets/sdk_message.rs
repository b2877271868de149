#![no_main]

#[path = "../sdk_message.rs"]
mod sdk_message;

libfuzzer_sys::fuzz_target!(|data: &[u8]| sdk_message::sdk_message(data));
