//! What is known about a message after it was opened.

use super::algorithm::SdkAlgorithm;
use super::header::SdkForm;

/// What was opened, and what the format left unprotected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SdkReport {
    /// The message's form.
    pub form: SdkForm,
    /// How it is encrypted.
    pub algorithm: SdkAlgorithm,
    /// Blocks; 1 for a memory message.
    pub blocks: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Whether the context declares the text's length and digest. The text then is whole and in order.
    pub is_declared: bool,
    /// The first block that is shorter than one after it. The SDK writes such blocks only when it reads from a
    /// pipe or a socket.
    pub short_block: Option<u64>,
    /// Whether the blocks were too many to look for copies among all of them.
    pub copies_unchecked: bool,
    /// Endpoints in the message, which were not used.
    pub endpoints: Vec<String>,
}

impl SdkReport {
    /// What a user should know before relying on the text, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if !self.is_declared {
            warnings.push(match self.form {
                SdkForm::File => format!(
                    "this format does not protect the order and number of blocks: {} blocks were opened, and \
                     whether others were removed or moved, or the end cut off between two blocks, is unknown",
                    self.blocks
                ),
                SdkForm::Memory => "this format does not tell a whole message from one block of a file with \
                                    the same data key: the text may be a piece of a longer one"
                    .to_owned(),
            });
            if let Some(block) = self.short_block {
                warnings.push(format!(
                    "block {block} is shorter than a later one: the message was written from a pipe, or its \
                     blocks were moved"
                ));
            }
            if self.copies_unchecked {
                warnings.push(
                    "the message has too many blocks to look for copies among all of them"
                        .to_owned(),
                );
            }
        }
        for endpoint in &self.endpoints {
            warnings.push(format!(
                "the message names the endpoint {endpoint:?}; it was not used"
            ));
        }
        warnings
    }
}
