use crate::workspace;
use std::process::Command;
use tests::{
    hub_server::{HubRequest, HubServer, commit_of},
    workspace::{QUICK_RETRIES, Workspace, run},
};

const MODEL: &str = "restok-team/tiny_32.r32";

fn tokenize(workspace: &Workspace, hub: &HubServer, tokenizer: &str, output: &str) -> Command {
    let mut command = workspace.restok([
        "tokenize",
        "--source",
        "images",
        "--output",
        output,
        "--tokenizer",
        tokenizer,
        "--devices",
        "cpu",
    ]);
    command.args(["--batch-size", "4", "--unit-size", "8"]).args(QUICK_RETRIES);
    command
        .env("HF_ENDPOINT", hub.endpoint())
        .env("HF_HOME", workspace.path("hub-cache"))
        .env("HF_TOKEN", "hf_hidden_token");
    command
}

#[test]
fn a_tokenizer_from_the_hub_gives_the_tokens_of_the_same_folder() {
    let (workspace, hub) = (workspace(), HubServer::start());
    workspace.sample_folder(5);
    hub.publish_folder(MODEL, "main", &workspace.tokenizer());
    hub.publish(MODEL, "main", "pytorch_model.bin", "must not be asked for");
    let reference = format!("hf://{MODEL}");
    let finished = run(&mut tokenize(&workspace, &hub, &reference, "from-hub")).expect_code(0);
    assert!(!format!("{}{}", finished.stdout, finished.stderr).contains("hf_hidden_token"));
    run(&mut workspace.tokenize("images", "from-folder")).expect_code(0);
    let tokens = |output: &str| tests::tables::tokens(&workspace.files(output));
    assert_eq!(tokens("from-hub"), tokens("from-folder"));

    let asked = hub.requests();
    // Both files come from the commit that the branch pointed at when it was first asked.
    for file in ["config.json", "model.safetensors"] {
        let path = format!("{MODEL}/resolve/{}/{file}", commit_of("main"));
        assert!(asked.iter().any(|request| request.path == path), "{file} was not asked for by commit: {asked:?}");
    }
    assert!(
        asked
            .iter()
            .filter(|request| request.path.starts_with(MODEL))
            .all(|request| request.token.as_deref() == Some("hf_hidden_token"))
    );
    assert!(!asked.iter().any(|request| request.path.contains("pytorch_model")), "{asked:?}");
    // Kept in the hub's cache: a second run fetches no weights.
    run(&mut tokenize(&workspace, &hub, &reference, "again")).expect_code(0);
    let downloads =
        |requests: &[HubRequest]| requests.iter().filter(|request| request.path.starts_with("large-files/")).count();
    assert_eq!(downloads(&hub.requests()), downloads(&asked));
}

#[test]
fn a_tokenizer_in_shards_comes_with_all_of_them_and_gives_the_same_tokens() {
    let (workspace, hub) = (workspace(), HubServer::start());
    workspace.sample_folder(5);
    run(&mut workspace.tokenize("images", "from-one-file")).expect_code(0);
    tests::tokenizer::shard(&workspace.tokenizer(), 3);
    run(&mut workspace.tokenize("images", "from-shards")).expect_code(0);
    hub.publish_folder(MODEL, "main", &workspace.tokenizer());
    run(&mut tokenize(&workspace, &hub, &format!("hf://{MODEL}"), "from-hub")).expect_code(0);
    let tokens = |output: &str| tests::tables::tokens(&workspace.files(output));
    assert_eq!(tokens("from-one-file"), tokens("from-shards"));
    assert_eq!(tokens("from-one-file"), tokens("from-hub"));
    let fetched = hub.requests().into_iter().filter(|request| request.path.starts_with("large-files/"));
    let fetched: std::collections::BTreeSet<String> = fetched.map(|request| request.path).collect();
    assert_eq!(fetched.iter().filter(|path| path.contains("-of-00003.safetensors")).count(), 3, "{fetched:?}");
}

#[test]
fn a_revision_is_asked_for_by_its_name() {
    let (workspace, hub) = (workspace(), HubServer::start());
    workspace.sample_folder(5);
    hub.publish_folder(MODEL, "v1.1", &workspace.tokenizer());
    run(&mut tokenize(&workspace, &hub, &format!("hf://{MODEL}@v1.1"), "out")).expect_code(0);
    let of_revision = |request: &HubRequest| {
        request.path.contains("/resolve/v1.1/") || request.path.contains(&format!("/resolve/{}/", commit_of("v1.1")))
    };
    assert!(hub.requests().iter().all(of_revision), "{:?}", hub.requests());
    run(&mut tokenize(&workspace, &hub, &format!("hf://{MODEL}@v9"), "other"))
        .expect_code(42)
        .expect_message(&[MODEL, "v9"]);
}

#[test]
fn a_model_without_safe_weights_is_refused_with_what_to_do() {
    let (workspace, hub) = (workspace(), HubServer::start());
    workspace.sample_folder(5);
    hub.publish(MODEL, "main", "config.json", tests::tokenizer::config().to_string());
    hub.publish(MODEL, "main", "pytorch_model.bin", "a pickle");
    let finished = run(&mut tokenize(&workspace, &hub, &format!("hf://{MODEL}"), "out")).expect_code(42);
    finished.expect_message(&["model.safetensors", MODEL]);
    run(&mut tokenize(&workspace, &hub, "hf://nobody/nothing", "out"))
        .expect_code(42)
        .expect_message(&["nobody/nothing"]);
    run(&mut tokenize(&workspace, &hub, "hf://nothing", "out")).expect_code(42).expect_message(&["hf://owner/name"]);
}

#[test]
fn a_hub_that_cannot_be_reached_is_a_temporary_failure() {
    let workspace = workspace();
    workspace.sample_folder(5);
    // A port that is taken and not listened to: one that was let go of might be the next test's server by now.
    let taken = tokio::net::TcpSocket::new_v4().expect("a socket");
    taken.bind("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let endpoint = format!("http://{}", taken.local_addr().expect("its address"));
    let mut command = tokenize(&workspace, &HubServer::start(), &format!("hf://{MODEL}"), "out");
    run(command.env("HF_ENDPOINT", endpoint)).expect_code(75).expect_message(&[MODEL]);
}
