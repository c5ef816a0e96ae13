//! The page around its parts.

use super::{gather::Subject, sections};
use maud::{DOCTYPE, PreEscaped, html};

/// The style sheet, within the page.
const STYLE: &str = include_str!("style.css");

/// A browser that reads this fetches nothing, whatever else stood in the page.
const POLICY: &str = "default-src 'none'; img-src data:; style-src 'unsafe-inline'";

/// The page about `subjects`, in their order.
pub fn page(subjects: &[Subject]) -> String {
    let anchor = |number: usize| format!("output-{}", number + 1);
    let title = match subjects {
        [one] => format!("{} · restok", one.name),
        _ => "restok report".to_owned(),
    };
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="generator" content=(format!("restok {}", env!("CARGO_PKG_VERSION")));
                title { (title) }
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body {
                header.top {
                    h1 { "restok report" }
                    @if subjects.len() > 1 {
                        nav aria-label="outputs" {
                            ol {
                                @for (number, subject) in subjects.iter().enumerate() {
                                    li {
                                        a href=(format!("#{}", anchor(number))) { (subject.name) }
                                        span { (subject.content.kind()) }
                                        @if let Some((state, class)) = sections::state(subject) { span.badge.(class) { (state) } }
                                    }
                                }
                            }
                        }
                    }
                }
                main { @for (number, subject) in subjects.iter().enumerate() { (sections::subject(subject, &anchor(number))) } }
                footer { "Written by restok " (env!("CARGO_PKG_VERSION")) ". All that is shown is in this file." }
            }
        }
    };
    page.into_string()
}
