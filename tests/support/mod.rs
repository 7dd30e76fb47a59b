//! What the end-to-end tests share.

pub(crate) mod collector;
pub(crate) mod feed;
pub(crate) mod feed_proxy;
pub(crate) mod following;
pub(crate) mod session;
pub(crate) mod system;
