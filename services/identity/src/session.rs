//! Rules of sessions in the console and of signing in.

use std::net::{IpAddr, Ipv6Addr};

use sha2::{Digest as _, Sha256};
use time::Duration;

use crate::secret::Hash;

/// How long a session lasts that nobody uses.
pub const IDLE: Duration = Duration::minutes(30);

/// How long a session lasts, however much it is used.
pub const LONGEST: Duration = Duration::hours(12);

/// How long a link lasts that an operator makes.
pub(crate) const RESET: Duration = Duration::minutes(30);

/// How long a link lasts that an admin makes, who sends it to a colleague.
pub(crate) const INVITATION: Duration = Duration::days(7);

/// How long the organisations to choose from stand.
pub(crate) const CHOICE: Duration = Duration::minutes(5);

/// How long an e-mail address waits at most after a wrong password. It is never locked for good:
/// anybody could lock an admin out.
pub(crate) const LONGEST_WAIT: Duration = Duration::seconds(60);

/// How often a client's address may be wrong at once,
pub(crate) const BUCKET: i32 = 10;

/// and after how long once more.
pub(crate) const BUCKET_INTERVAL: Duration = Duration::seconds(6);

/// What attempts with an e-mail address are counted under.
pub(crate) fn email_subject(email_key: &str) -> Hash {
    Sha256::new_with_prefix("e-mail ").chain_update(email_key).finalize().into()
}

/// What attempts from a client's address are counted under; none where it is not known. A network
/// is given to a customer whole in IPv6, so that it counts as one.
pub(crate) fn client_subject(address: &str) -> Option<Hash> {
    let address = match address.parse().ok()? {
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(address) => IpAddr::V4(address),
            None => IpAddr::V6(Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX))),
        },
        address @ IpAddr::V4(_) => address,
    };
    Some(Sha256::new_with_prefix("client ").chain_update(address.to_string()).finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_of_one_customer_counts_as_one_client() {
        assert_eq!(client_subject("2001:db8::1"), client_subject("2001:db8::2:1"));
        assert_ne!(client_subject("2001:db8::1"), client_subject("2001:db8:0:1::1"));
        assert_eq!(client_subject("::ffff:192.0.2.1"), client_subject("192.0.2.1"));
        assert_ne!(client_subject("192.0.2.1"), client_subject("192.0.2.2"));
        assert_eq!(client_subject(""), None);
    }
}
