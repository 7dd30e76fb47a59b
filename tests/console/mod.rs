//! The console and the documentation in a real browser.

mod attacks;
mod chromium;
mod pages;
mod walk;
