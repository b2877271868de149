//! Encrypted messages: what is written can be read, by the AWS Encryption SDK too, and nothing else can.

mod changed;
mod command;

mod interoperable;
mod keys;
mod round_trip;

use std::io::Cursor;

use dew_provider::envelope::{
    EncryptionContext, Header, KeyProvider, MessageError, NewMessage, OpenMessage, encrypt,
};
use keys::StaticKeys;
use ring::rand::SystemRandom;

/// Bytes that differ from frame to frame.
fn text(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 % 251) as u8).collect()
}

fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    EncryptionContext::new(pairs.iter().map(owned)).unwrap()
}

async fn sealed(keys: &StaticKeys, context: EncryptionContext, frame: u32, text: &[u8]) -> Vec<u8> {
    let (data_key, wrapped) = keys.generate(&context).await.unwrap();
    let message = NewMessage {
        context,
        data_key,
        keys: wrapped,
        frame_length: frame,
    };
    let mut output = Vec::new();
    encrypt(message, &SystemRandom::new(), &mut &*text, &mut output).unwrap();
    output
}

/// Decrypts a whole message: its text, or an error after what had been given out until then.
async fn opened(keys: &StaticKeys, message: &[u8]) -> Result<Vec<u8>, String> {
    let mut input = message;
    let opened = unlock(keys, &mut input).await?;
    let mut output = Vec::new();
    let length = opened.decrypt(&mut input, &mut output).map_err(shown)?;
    assert_eq!(length, output.len() as u64);
    Ok(output)
}

/// Decrypts a part of a message.
async fn part(keys: &StaticKeys, message: &[u8], start: u64, end: u64) -> Result<Vec<u8>, String> {
    let mut input = Cursor::new(message);
    let opened = unlock(keys, &mut input).await?;
    let mut output = Vec::new();
    let length = opened.decrypt_range(&mut input, start..end, &mut output);
    assert_eq!(length.map_err(shown)?, output.len() as u64);
    Ok(output)
}

async fn unlock(keys: &StaticKeys, input: &mut impl std::io::Read) -> Result<OpenMessage, String> {
    let header = Header::read(input).map_err(shown)?;
    let data_key = keys.unwrap(&header.keys, &header.context).await;
    let data_key = data_key.map_err(|error| error.to_string())?;
    OpenMessage::unlock(header, &data_key).map_err(shown)
}

fn shown(error: MessageError) -> String {
    error.to_string()
}
