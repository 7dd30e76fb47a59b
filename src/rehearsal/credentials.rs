//! Step 1 of the guide: *Test API Credentials*.

use super::{Rehearsal, Step};
use crate::scim_client::{eq, query};

pub(super) const STEPS: usize = 3;

const PART: &str = "Step 1: Test API Credentials";

impl Rehearsal<'_> {
    /// The three probes that Okta's versions send. `false` if the first gets no list: then nothing
    /// else will either.
    pub(super) async fn test_credentials(&mut self) -> bool {
        let nobody = query(&[
            ("filter", &eq("userName", "00uNobodyHasThisName@northwind.example")),
            ("startIndex", "1"),
            ("count", "100"),
        ]);
        let probes = [
            ("Ask for the first users", "/Users?startIndex=1&count=2".to_owned()),
            ("Ask for a user who is not there", format!("/Users{nobody}")),
            ("Ask for the first group", "/Groups?startIndex=1&count=1".to_owned()),
        ];
        for (number, (name, path)) in probes.into_iter().enumerate() {
            let mut step = Step::new(PART, name);
            let exchange = step.get(self.client, &path).await;
            if let Some(exchange) = &exchange {
                let resources = step.resources(exchange).len();
                if number == 1 {
                    step.expect(exchange, "the number of users found", resources, 0);
                }
            }
            let hopeless = number == 0 && exchange.is_none();
            if hopeless {
                step.fail("nothing can follow: the rest of the guide was not tried");
            }
            self.end(step);
            if hopeless {
                return false;
            }
        }
        true
    }
}
