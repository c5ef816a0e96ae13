//! `restok report`: what is on the page, and the page.
//!
//! ```text
//! addresses ── gather: read what is there ──▶ subjects ── sections, charts: show it ──▶ page: one file of HTML
//! ```
//! Reading and showing are apart: what is read are plain values, and the page is a function of them. It holds no clock of its own, so
//! that the same outputs give the same bytes; no script, so that nothing in it can fail; and no address that a browser would fetch.

mod album;
mod charts;
mod gather;
mod page;
mod sections;
mod settings_list;

pub(crate) use album::Album;
pub(crate) use gather::gather;
pub(crate) use page::page;
