//! The console and the documentation in a real browser.

mod chromium;
mod pages;
mod walk;
