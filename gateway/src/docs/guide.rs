//! The guides of `docs/`, from Markdown to HTML: one source for whoever reads the repository and
//! whoever reads `/docs`.

use askama::filters::Safe;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html};

pub(super) const OKTA: &str = include_str!("../../../docs/okta.md");
pub(super) const APPROVERS: &str = include_str!("../../../docs/approvers.md");

/// A guide, ready to show.
pub(super) struct Guide {
    pub title: String,
    /// Safe to show as it is: it comes from a file of ours, whose own HTML is shown as text.
    pub html: Safe<String>,
    /// Its headings: where they stand, and what they say.
    pub headings: Vec<(String, String)>,
}

impl Guide {
    pub(super) fn of(markdown: &str) -> Self {
        let mut guide = Self { title: String::new(), html: Safe(String::new()), headings: vec![] };
        let mut heading: Option<(bool, String)> = None;
        let mut events = Vec::new();
        for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
            match event {
                Event::Start(Tag::Heading { level, .. }) => {
                    heading = Some((level as usize == 1, String::new()));
                }
                Event::End(TagEnd::Heading(_)) => {
                    let Some((is_title, text)) = heading.take() else { continue };
                    if is_title {
                        guide.title = text;
                    } else {
                        let anchor = anchor(&text);
                        events.push(Event::Html(format!("<h2 id=\"{anchor}\">").into()));
                        events.push(Event::Text(text.clone().into()));
                        events.push(Event::Html("</h2>\n".into()));
                        guide.headings.push((anchor, text));
                    }
                }
                Event::Text(text) | Event::Code(text) | Event::InlineHtml(text)
                    if heading.is_some() =>
                {
                    if let Some((_, heading)) = &mut heading {
                        heading.push_str(&text);
                    }
                }
                Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                    let dest_url = address(&dest_url).into();
                    events.push(Event::Start(Tag::Link { link_type, dest_url, title, id }));
                }
                Event::Html(text) | Event::InlineHtml(text) => events.push(Event::Text(text)),
                event => events.push(event),
            }
        }
        html::push_html(&mut guide.html.0, events.into_iter());
        guide
    }
}

/// Another guide's address here.
fn address(link: &str) -> String {
    match link.strip_suffix(".md") {
        Some(name) if !name.contains('/') => format!("/docs/{name}"),
        _ => link.to_owned(),
    }
}

/// A heading's anchor, as other renderers of Markdown make it.
fn anchor(heading: &str) -> String {
    let mut anchor = String::new();
    for character in heading.to_lowercase().chars() {
        match character {
            ' ' => anchor.push('-'),
            c if c.is_alphanumeric() || c == '-' => anchor.push(c),
            _ => {}
        }
    }
    anchor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guide_is_shown_with_its_headings_and_its_links_stay_here() {
        let guide = Guide::of(
            "# Title\n\n## Step 3a: <Assign>\n\nSee [a](approvers.md) & <script>x</script>\n\n\
             |a|b|\n|-|-|\n|1|2|\n",
        );
        assert_eq!(guide.title, "Title");
        assert_eq!(guide.headings, [("step-3a-assign".into(), "Step 3a: <Assign>".into())]);
        let html = guide.html.0;
        assert!(html.contains("<h2 id=\"step-3a-assign\">Step 3a: &lt;Assign&gt;</h2>"), "{html}");
        assert!(html.contains("href=\"/docs/approvers\""), "{html}");
        assert!(html.contains("<table>") && !html.contains("<script>"), "{html}");
        for markdown in [OKTA, APPROVERS] {
            assert!(!Guide::of(markdown).title.is_empty());
        }
    }
}
