//! How a session begins. Passwords are hashed outside of transactions: each takes a while.

use muster_proto::identity::v1::sign_in_response::Choice;
use muster_proto::identity::v1::{
    AcceptInvitationRequest, AuditAction, ChangePasswordRequest, SignInRequest, SignInResponse,
};
use muster_runtime::clock;
use muster_runtime::id::OrganisationId;
use muster_scim::caseless;
use uuid::Uuid;

use super::organisation_id;
use super::session::by_themselves;
use crate::secret::Hash;
use crate::session::{CHOICE, client_subject, email_subject};
use crate::store::audit;
use crate::store::sign_in::{self as store, Account, Known};
use crate::store::{admin, invitation, session};
use crate::{Error, Identity, password, secret};

/// An attempt that was allowed: what to give back where it turns out right.
struct Attempt {
    organisation: OrganisationId,
    email: Hash,
    client: Option<Hash>,
}

impl Identity {
    pub(super) async fn sign_in_with_password(
        &self,
        request: SignInRequest,
    ) -> Result<SignInResponse, Error> {
        let SignInRequest { email, password, client_address } = request;
        let accounts = self.accounts(&email).await?;
        let attempt = self.attempt(&email, &accounts, &client_address).await?;
        let mut right = Vec::new();
        let mut wrong = Vec::new();
        // Who is no admin takes the same steps as who is one.
        let nobody = Account { organisation: nil(), admin: Uuid::nil().into() };
        for account in if accounts.is_empty() { vec![nobody] } else { accounts } {
            let known = self.known(account).await?;
            let hash = known.as_ref().and_then(|known| known.password_hash.clone());
            let verified = self.passwords.verify(password.clone(), hash.clone()).await?;
            match known {
                Some(known) if verified => {
                    if hash.as_deref().is_some_and(password::is_outdated) {
                        self.hash_again(account, password.clone()).await?;
                    }
                    right.push((account, known));
                }
                Some(known) => wrong.push((account, known)),
                None => {}
            }
        }
        if right.is_empty() {
            self.refused(wrong, client_address);
            return Err(Error::NotRight);
        }
        self.give_back(attempt).await?;
        self.begin_or_choose(right, client_address).await
    }

    /// Signs in whoever has an e-mail address, on another's word.
    pub(super) async fn sign_in_as(
        &self,
        email: &str,
        client_address: String,
    ) -> Result<SignInResponse, Error> {
        let mut known = Vec::new();
        for account in self.accounts(email).await? {
            known.extend(self.known(account).await?.map(|known| (account, known)));
        }
        if known.is_empty() {
            return Err(Error::NotRight);
        }
        self.begin_or_choose(known, client_address).await
    }

    pub(super) async fn set_password_by_link(
        &self,
        request: AcceptInvitationRequest,
    ) -> Result<SignInResponse, Error> {
        let AcceptInvitationRequest { secret, password, client_address } = request;
        let invited = secret::parse(secret::Kind::Invitation, &secret);
        let (id, hash) = invited.ok_or(Error::NotFound("link"))?;
        let email = self
            .database
            .read(id, move |c| {
                Box::pin(async move {
                    let admin = invitation::get(c, id, hash, clock::now()).await?;
                    let admin = admin::get(c, Account { organisation: id, admin }).await?;
                    Ok::<_, Error>(admin.email)
                })
            })
            .await?;
        password::checked("password", &password, &email)?;
        let password_hash = self.passwords.hash(password).await?;
        let now = clock::now();
        let taken = self
            .database
            .write(id, move |c| {
                Box::pin(async move {
                    let account = invitation::take(c, id, hash, now).await?;
                    replace_password(c, account, password_hash, email, client_address).await
                })
            })
            .await?;
        Ok(SignInResponse { session: taken, choices: Vec::new() })
    }

    pub(super) async fn set_another_password(
        &self,
        request: ChangePasswordRequest,
    ) -> Result<SignInResponse, Error> {
        let ChangePasswordRequest { current_password, new_password, client_address, .. } = request;
        let organisation = organisation_id(&request.organisation_id)?;
        let admin = request.admin_id.parse().map_err(|_| Error::NotFound("admin"))?;
        let account = Account { organisation, admin };
        let known = self.known(account).await?.ok_or(Error::NotFound("admin"))?;
        password::checked("new_password", &new_password, &known.email)?;
        // Whoever finds a session open cannot guess on.
        let accounts = self.accounts(&known.email).await?;
        let attempt = self.attempt(&known.email, &accounts, &client_address).await?;
        if !self.passwords.verify(current_password, known.password_hash.clone()).await? {
            return Err(Error::Invalid {
                field: "current_password",
                description: "is not right; type the one that you sign in with".into(),
            });
        }
        self.give_back(attempt).await?;
        let password_hash = self.passwords.hash(new_password).await?;
        let session = self
            .database
            .write(organisation, move |c| {
                Box::pin(async move {
                    invitation::delete_all(c, account).await?;
                    replace_password(c, account, password_hash, known.email, client_address).await
                })
            })
            .await?;
        Ok(SignInResponse { session, choices: Vec::new() })
    }

    async fn accounts(&self, email: &str) -> Result<Vec<Account>, Error> {
        let key = caseless::key(email);
        self.database.read_shared(move |c| Box::pin(store::accounts(c, key))).await
    }

    async fn known(&self, account: Account) -> Result<Option<Known>, Error> {
        let organisation = account.organisation;
        self.database.read(organisation, move |c| Box::pin(store::known(c, account))).await
    }

    /// Takes a turn for an e-mail address and one of the client's attempts. Nothing is hashed for
    /// whoever has to wait.
    async fn attempt(
        &self,
        email: &str,
        accounts: &[Account],
        client_address: &str,
    ) -> Result<Attempt, Error> {
        let now = clock::now();
        let client = client_subject(client_address);
        if let Some(client) = client {
            self.database
                .write(nil(), move |c| Box::pin(store::take_from_bucket(c, nil(), client, now)))
                .await?
                .map_err(|wait| Error::TooManyAttempts { wait })?;
        }
        let organisation = accounts.first().map_or_else(nil, |account| account.organisation);
        let email = email_subject(&caseless::key(email));
        self.database
            .write(organisation, move |c| Box::pin(store::take_turn(c, organisation, email, now)))
            .await?
            .map_err(|wait| Error::TooManyAttempts { wait })?;
        Ok(Attempt { organisation, email, client })
    }

    async fn give_back(&self, attempt: Attempt) -> Result<(), Error> {
        let Attempt { organisation, email, client } = attempt;
        self.database
            .write(organisation, move |c| Box::pin(store::forget_failures(c, organisation, email)))
            .await?;
        let Some(client) = client else { return Ok(()) };
        self.database
            .write(nil(), move |c| Box::pin(store::put_into_bucket(c, nil(), client)))
            .await
    }

    async fn hash_again(&self, account: Account, password: String) -> Result<(), Error> {
        let hash = self.passwords.hash(password).await?;
        self.database
            .write(account.organisation, move |c| Box::pin(admin::set_password(c, account, hash)))
            .await
    }

    /// Records a refusal beside the answer: that it takes longer for an admin would tell who is one.
    fn refused(&self, accounts: Vec<(Account, Known)>, client_address: String) {
        let database = self.database.clone();
        let record = async move {
            for (account, known) in accounts {
                let event = by_themselves(account, known.email, client_address.clone());
                let recorded = database.write(account.organisation, move |c| {
                    let event = event(AuditAction::SignInRefused);
                    Box::pin(audit::add(c, account.organisation, event, clock::now()))
                });
                if let Err(error) = recorded.await {
                    tracing::warn!(%error, "a refused sign-in could not be recorded");
                }
            }
        };
        drop(self.life.spawn(record));
    }

    /// Begins a session in the one organisation, or offers the several.
    async fn begin_or_choose(
        &self,
        mut accounts: Vec<(Account, Known)>,
        client_address: String,
    ) -> Result<SignInResponse, Error> {
        let now = clock::now();
        if accounts.len() == 1
            && let Some((account, known)) = accounts.pop()
        {
            let secret = secret::generate(secret::Kind::Session, account.organisation);
            let hash = secret::hash(&secret);
            self.database
                .write(account.organisation, move |c| {
                    Box::pin(async move {
                        session::begin(c, account, hash, now).await?;
                        let event = by_themselves(account, known.email, client_address);
                        let event = event(AuditAction::SignedIn);
                        audit::add(c, account.organisation, event, now).await
                    })
                })
                .await?;
            return Ok(SignInResponse { session: secret, choices: Vec::new() });
        }
        let mut choices = Vec::new();
        for (account, known) in accounts {
            let secret = secret::generate(secret::Kind::Choice, account.organisation);
            let hash = secret::hash(&secret);
            self.database
                .write(account.organisation, move |c| {
                    Box::pin(invitation::create(c, account, hash, now + CHOICE))
                })
                .await?;
            choices.push(Choice { secret, organisation_name: known.organisation_name });
        }
        Ok(SignInResponse { session: String::new(), choices })
    }
}

/// Keeps another password, ends every session and begins one; its secret.
async fn replace_password(
    connection: &mut sqlx::PgConnection,
    account: Account,
    password_hash: String,
    email: String,
    client_address: String,
) -> Result<String, Error> {
    let now = clock::now();
    let secret = secret::generate(secret::Kind::Session, account.organisation);
    admin::set_password(connection, account, password_hash).await?;
    session::end_all(connection, account).await?;
    session::begin(connection, account, secret::hash(&secret), now).await?;
    let event = by_themselves(account, email, client_address)(AuditAction::PasswordSet);
    audit::add(connection, account.organisation, event, now).await?;
    Ok(secret)
}

/// The organisation of whoever is in none.
fn nil() -> OrganisationId {
    Uuid::nil().into()
}
