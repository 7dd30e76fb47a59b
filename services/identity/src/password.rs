//! Passwords: which are accepted, and how they are kept.
//!
//! Argon2id with 19 MiB, two passes and one lane, as OWASP's cheat sheet on password storage has
//! it. Each takes a core and its memory for a while, so no more are hashed at once than there are
//! cores; the rest waits its turn.

use std::sync::{Arc, Mutex};
use std::thread::available_parallelism;

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use muster_runtime::metrics::{self, Counted};
use muster_scim::caseless;
use opentelemetry::metrics::UpDownCounter;
use tokio::sync::Semaphore;

use crate::Error;

/// The fewest characters of a password.
const SHORTEST: usize = 12;

/// The most: more would be work for nothing.
const LONGEST: usize = 256;

/// What people type who are asked for twelve characters.
const DENIED: [&str; 32] = [
    "passwordpassword",
    "password1234",
    "password12345",
    "password123456",
    "password123!",
    "passw0rd1234",
    "p@ssw0rd1234",
    "p@ssword1234",
    "letmeinletmein",
    "letmein123456",
    "welcome12345",
    "welcome123456",
    "welcome12345!",
    "iloveyou1234",
    "iloveyouiloveyou",
    "qwertyuiop12",
    "qwertyuiop123",
    "qwertyuiop[]",
    "qwertyqwerty",
    "qwerty123456",
    "1q2w3e4r5t6y",
    "1qaz2wsx3edc",
    "qazwsxedcrfv",
    "zaq12wsxcde3",
    "administrator",
    "administrator1",
    "adminadminadmin",
    "changemechangeme",
    "changeme1234",
    "correcthorsebatterystaple",
    "correct horse battery staple",
    "mustermuster",
];

/// A hash of today's cost that no password has: who is no admin is checked against it, so that time
/// does not tell who is one.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$bXVzdGVyIGlzIG5vYm9keQ$\
     Tm9ib2R5J3MgcGFzc3dvcmQsIGFzIGlzIHdyaXR0ZW4";

/// The most that are hashed at once where nothing else is said, however many cores there are: each
/// takes 19 MiB.
const MOST_AT_ONCE: usize = 8;

/// Hashes and checks passwords. Cloning it is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Passwords {
    cores: Arc<Semaphore>,
    waiting: UpDownCounter<i64>,
    /// Memory to work in, kept: what is freed on one thread after the other adds up, thread by
    /// thread, to many times what is used (measured: 735 MB after a hundred sign-ins).
    memories: Arc<Mutex<Vec<Vec<Block>>>>,
}

impl Passwords {
    pub(crate) fn new(at_once: Option<usize>) -> Self {
        let cores = || available_parallelism().map_or(1, usize::from).min(MOST_AT_ONCE);
        Self {
            cores: Arc::new(Semaphore::new(at_once.unwrap_or_else(cores))),
            waiting: metrics::PASSWORDS_WAITING.up_down_counter(),
            memories: Arc::default(),
        }
    }

    /// What is kept of a password.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Error> {
        let made = self.work(move |memory| {
            let (params, salt) = (Params::default(), Salt::generate());
            let hash = derive(&params, &password, &salt, Params::DEFAULT_OUTPUT_LEN, memory)?;
            let made = PasswordHash {
                algorithm: Algorithm::Argon2id.ident(),
                version: Some(Version::V0x13.into()),
                params: ParamsString::try_from(&params).ok()?,
                salt: Some(salt),
                hash: Some(hash),
            };
            Some(made.to_string())
        });
        made.await?.ok_or(Error::Hashing)
    }

    /// Whether a password is the one that `hash` was made of. The same work without a hash.
    pub(crate) async fn verify(
        &self,
        password: String,
        hash: Option<String>,
    ) -> Result<bool, Error> {
        self.work(move |memory| {
            let parsed = PasswordHash::new(hash.as_deref().unwrap_or(NOBODY)).ok()?;
            let (salt, expected) = (parsed.salt?, parsed.hash?);
            let params = Params::try_from(&parsed).ok()?;
            let found = derive(&params, &password, &salt, expected.len(), memory)?;
            // Compared in a time that does not tell where they differ.
            (found == expected && hash.is_some()).then_some(())
        })
        .await
        .map(|right| right.is_some())
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Vec<Block>) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let waits = Counted::begin(&self.waiting);
        let core = self.cores.clone().acquire_owned().await.map_err(|_| Error::Hashing)?;
        drop(waits);
        let memories = self.memories.clone();
        let done = tokio::task::spawn_blocking(move || {
            let _core = core;
            let lent = muster_runtime::lock(&memories).pop();
            let mut memory = lent.unwrap_or_default();
            let done = work(&mut memory);
            muster_runtime::lock(&memories).push(memory);
            done
        });
        done.await.map_err(|_| Error::Hashing)
    }
}

fn derive(
    params: &Params,
    password: &str,
    salt: &Salt,
    length: usize,
    memory: &mut Vec<Block>,
) -> Option<Output> {
    memory.resize(params.block_count().max(memory.len()), Block::default());
    let blocks = &mut memory[..params.block_count()];
    let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone());
    let mut out = [0; Output::MAX_LENGTH];
    let out = out.get_mut(..length)?;
    hasher.hash_password_into_with_memory(password.as_bytes(), salt, out, blocks).ok()?;
    Output::new(out).ok()
}

/// Whether a hash is cheaper than those made now: the password is then hashed again.
pub(crate) fn is_outdated(hash: &str) -> bool {
    let Ok(parsed) = PasswordHash::new(hash) else { return true };
    let Ok(params) = Params::try_from(&parsed) else { return true };
    let now = Params::default();
    parsed.algorithm.as_str() != "argon2id"
        || params.m_cost() < now.m_cost()
        || params.t_cost() < now.t_cost()
}

/// Refuses a new password that is too short or easily guessed.
pub(crate) fn checked(field: &'static str, password: &str, email: &str) -> Result<(), Error> {
    let wrong = |description: &str| Err(Error::Invalid { field, description: description.into() });
    let characters = password.chars().count();
    if characters < SHORTEST {
        return wrong(&format!(
            "has {characters} characters; expected at least {SHORTEST}: three or four words do well"
        ));
    }
    if characters > LONGEST {
        return wrong(&format!("is longer than {LONGEST} characters; expected fewer"));
    }
    let (key, email) = (caseless::key(password), caseless::key(email));
    let local = email.split('@').next().unwrap_or_default();
    let guessed = DENIED.contains(&&*key)
        || is_a_run(&key)
        || key == email
        || (!local.is_empty() && key.replace(local, "").chars().count() < 6);
    if guessed {
        return wrong(
            "is one that is guessed first; expected another: three or four words do well",
        );
    }
    Ok(())
}

/// One to four characters again and again, or characters that follow each other (`123456789012`).
fn is_a_run(password: &str) -> bool {
    let characters: Vec<char> = password.chars().collect();
    let repeats = |width: usize| characters.iter().zip(&characters[width..]).all(|(a, b)| a == b);
    let steps: Vec<i64> = characters
        .windows(2)
        .map(|w| i64::from(u32::from(w[1])) - i64::from(u32::from(w[0])))
        .collect();
    // Nine is followed by nought.
    let follows = |by: i64| steps.iter().all(|step| *step == by || *step == -9 * by);
    (1..=4).any(repeats) || follows(1) || follows(-1)
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordVerifier as _;

    use super::*;

    #[test]
    fn a_new_password_has_twelve_characters_and_is_not_guessed_first() {
        for wrong in [
            "",
            "elevenchars",
            "aaaaaaaaaaaaaaaa",
            "abcabcabcabcabc",
            "123456789012",
            "098765432109",
            "abcdefghijkl",
            "Password1234",
            "ann.bell@acme.example",
            "ann.bell12345",
            &"ab c".repeat(100),
        ] {
            assert!(checked("password", wrong, "Ann.Bell@acme.example").is_err(), "{wrong}");
        }
        for right in ["twelve chars", "plum torch canvas", "dÿ-ß-ñ-é-ü-ø", "Xk2#pq9Lm!4z"] {
            assert!(checked("password", right, "ann.bell@acme.example").is_ok(), "{right}");
        }
    }

    #[tokio::test]
    async fn no_more_are_checked_at_once_than_may_and_the_next_one_waits() {
        let passwords = Passwords::new(Some(1));
        let core = passwords.cores.clone().try_acquire_owned().unwrap();
        let mut next = std::pin::pin!(passwords.verify("plum torch canvas".into(), None));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(next.as_mut().poll(&mut context).is_pending());
        assert_eq!(passwords.cores.available_permits(), 0);
        drop(core);
        assert!(!next.await.unwrap());
    }

    #[tokio::test]
    async fn a_password_is_known_again_and_another_is_not() {
        let passwords = Passwords::new(None);
        let hash = passwords.hash("plum torch canvas".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(!is_outdated(&hash));
        // The library reads it as one of its own.
        let parsed = PasswordHash::new(&hash).unwrap();
        assert!(Argon2::default().verify_password(b"plum torch canvas", &parsed).is_ok());
        assert!(passwords.verify("plum torch canvas".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("plum torch canvaz".into(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("plum torch canvas".into(), None).await.unwrap());
    }

    #[test]
    fn who_is_nobody_costs_what_a_hash_costs_now() {
        assert!(!is_outdated(NOBODY));
        assert!(is_outdated(&NOBODY.replace("m=19456", "m=4096")));
    }
}
