//! The sessions of Okta and Entra ID, of tolerated and of bad input, against both compositions.

use crate::check::nothing_differs;
use crate::support::session::play;
use crate::support::system::both;

async fn play_on_both(session: &str) {
    for system in both() {
        eprintln!("{session} against {}", system.name);
        let tenant = system.tenant().await;
        play(&tenant.client, session).await;
        nothing_differs(system, &tenant.id).await;
    }
}

#[tokio::test]
async fn the_examples_of_the_rfcs_are_answered_as_they_say() {
    play_on_both("rfc-examples.json").await;
}

#[tokio::test]
async fn oktas_spec_test_passes() {
    play_on_both("okta-spec-test.json").await;
}

#[tokio::test]
async fn an_app_made_in_oktas_wizard_puts_everything() {
    play_on_both("okta-put.json").await;
}

#[tokio::test]
async fn an_app_of_oktas_catalog_patches_activation_and_groups() {
    play_on_both("okta-patch.json").await;
}

#[tokio::test]
async fn entra_id_provisions_users_and_groups() {
    play_on_both("entra.json").await;
}

#[tokio::test]
async fn entra_id_looks_up_users_groups_and_members() {
    play_on_both("entra-lookup.json").await;
}

#[tokio::test]
async fn what_real_clients_send_beside_the_rfcs_is_tolerated() {
    play_on_both("tolerated.json").await;
}

#[tokio::test]
async fn bad_input_is_refused_and_changes_nothing() {
    play_on_both("bad-input.json").await;
    for system in both() {
        assert!(!system.logs().contains("panicked"), "{}", system.logs());
    }
}
