//! `vswitch-perf report FILES -o report.html`: result files as one page a person looks at. It needs no script, no other
//! file, and no network; its plots are drawn here.
//!
//! `data` puts figures together, `sections` decides which become which plot, `bars` and `lines` draw them with
//! what is in `svg`, `page` puts the page around them.

mod bars;
mod data;
mod lines;
mod page;
mod raw;
mod sections;
mod svg;

pub use page::html;
