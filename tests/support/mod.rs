//! What the end-to-end tests share.

pub(crate) mod feed;
pub(crate) mod session;
pub(crate) mod system;
