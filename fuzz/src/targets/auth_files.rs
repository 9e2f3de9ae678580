//! The files of `[auth]`: an input that begins with `p` is a password file, any other is for the ACL file.

use super::{acl, password_file};

pub fn run(input: &[u8]) {
    match input.split_first() {
        Some((b'p', rest)) => password_file::run(rest),
        Some((_, rest)) => acl::run(rest),
        None => {}
    }
}
