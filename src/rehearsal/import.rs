//! Step 3b of the guide: *Import Now*.

use std::collections::HashSet;

use serde_json::Value;

use super::{Rehearsal, Step};

pub(super) const STEPS: usize = 2;

const PART: &str = "Step 3b: Import Now";

/// How many resources Okta asks for at a time.
const PAGE: usize = 100;

impl Rehearsal<'_> {
    /// Reads all users and all groups page by page, as Okta does, and a second time in other pages:
    /// the order must not depend on where a page begins.
    pub(super) async fn import(&mut self) {
        for (name, path) in [("Import all users", "/Users"), ("Import all groups", "/Groups")] {
            let mut step = Step::new(PART, name);
            if let Some(ids) = self.pages(&mut step, path, PAGE).await {
                self.look_at(&mut step, path, &ids).await;
            }
            self.end(step);
        }
    }

    async fn look_at(&self, step: &mut Step, path: &str, ids: &[String]) {
        let unique: HashSet<&String> = ids.iter().collect();
        if unique.len() != ids.len() {
            let twice = ids.len() - unique.len();
            step.fail(format!("GET {path} in pages of {PAGE} gave {twice} resources twice"));
        }
        if path == "/Users" {
            for assigned in &self.cast {
                if assigned.id.as_ref().is_some_and(|id| !unique.contains(id)) {
                    let name = assigned.person.full_name();
                    step.fail(format!("GET {path} in pages of {PAGE} did not give {name}"));
                }
            }
        }
        let smaller = (ids.len() / 4).clamp(3, PAGE);
        if let Some(again) = self.pages(step, path, smaller).await
            && again != ids
        {
            step.fail(format!(
                "GET {path} gave another order or other resources in pages of {smaller} than in \
                 pages of {PAGE}"
            ));
        }
    }

    /// The ids of all resources, read until `totalResults` is reached.
    async fn pages(&self, step: &mut Step, path: &str, count: usize) -> Option<Vec<String>> {
        let mut ids = Vec::new();
        loop {
            let start_index = ids.len() + 1;
            let page = format!("{path}?startIndex={start_index}&count={count}");
            let exchange = step.get(self.client, &page).await?;
            let resources = step.resources(&exchange);
            let total = usize::try_from(exchange.answer.at("/totalResults").as_u64()?).ok()?;
            let rest = total.saturating_sub(ids.len());
            if resources.len() > count || (resources.is_empty() && rest > 0) {
                let (sent, came) = (&exchange.sent, resources.len());
                let wanted = rest.min(count);
                step.fail(format!("sent {sent}; came {came} resources; expected {wanted}"));
                return None;
            }
            if !resources.is_empty() {
                step.expect(
                    &exchange,
                    "startIndex",
                    exchange.answer.at("/startIndex").clone(),
                    start_index,
                );
                step.expect(
                    &exchange,
                    "itemsPerPage",
                    exchange.answer.at("/itemsPerPage").clone(),
                    resources.len(),
                );
            }
            ids.extend(
                resources.iter().filter_map(|resource| resource["id"].as_str()).map(String::from),
            );
            if resources.iter().any(|resource| !resource["id"].is_string()) {
                let sent = &exchange.sent;
                step.fail(format!(
                    "sent {sent}; a resource came without id: {}",
                    Value::from(resources)
                ));
                return None;
            }
            if ids.len() >= total {
                step.expect(&exchange, "the number of resources on all pages", ids.len(), total);
                return Some(ids);
            }
        }
    }
}
