//! CSV files that are sent as they are made, and that spreadsheets take for text.

use std::borrow::Cow;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderValue, header};
use tonic::Status;

/// What a spreadsheet takes for the start of a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// A cell that no spreadsheet takes for a formula: with an apostrophe before it where it would.
pub(super) fn safe(cell: &str) -> Cow<'_, str> {
    if cell.starts_with(FORMULA) { format!("'{cell}").into() } else { cell.into() }
}

/// Rows as CSV (RFC 4180); each cell is made [`safe`].
pub(super) fn text<C: AsRef<str>>(rows: &[Vec<C>]) -> Bytes {
    let mut text = String::new();
    for row in rows {
        for (n, cell) in row.iter().enumerate() {
            if n > 0 {
                text.push(',');
            }
            let cell = safe(cell.as_ref());
            if cell.contains([',', '"', '\n', '\r']) {
                text.push('"');
                text.push_str(&cell.replace('"', "\"\""));
                text.push('"');
            } else {
                text.push_str(&cell);
            }
        }
        text.push_str("\r\n");
    }
    text.into()
}

/// Answers with a file of that name: a header, then rows as they come. Where they fail on the way,
/// the connection breaks, so that nobody takes a part for the whole.
pub(super) fn file(
    name: &str,
    header: &[&str],
    rows: impl Stream<Item = Result<Vec<Vec<String>>, Status>> + Send + 'static,
) -> Response {
    // Excel reads UTF-8 where a byte order mark says so.
    let mut head = b"\xef\xbb\xbf".to_vec();
    head.extend_from_slice(&text(&[header.to_vec()]));
    let rows = rows.map(|rows| rows.map(|rows| text(&rows)));
    let body = stream::iter([Ok(Bytes::from(head))]).chain(rows);
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8"));
    // Names are ours, of letters and hyphens.
    let disposition = format!("attachment; filename=\"{name}.csv\"");
    if let Ok(disposition) = disposition.parse() {
        headers.insert(header::CONTENT_DISPOSITION, disposition);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_begins_a_formula_and_every_cell_reads_back() {
        for (cell, shown) in [
            ("=1+1", "'=1+1"),
            ("+44 20", "'+44 20"),
            ("-1", "'-1"),
            ("@x", "'@x"),
            ("\tx", "'\tx"),
            ("a=b", "a=b"),
            ("", ""),
        ] {
            assert_eq!(safe(cell), shown);
        }
        let rows = [vec!["a,b", "say \"x\"", "two\nlines"], vec!["=cmd|' /C calc'!A0", "é", ""]];
        let expected = "\"a,b\",\"say \"\"x\"\"\",\"two\nlines\"\r\n'=cmd|' /C calc'!A0,é,\r\n";
        assert_eq!(text(&rows), expected);
    }
}
