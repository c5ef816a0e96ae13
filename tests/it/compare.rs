use crate::{
    evaluate::{ALLOWED, evaluate_into, generate_of_seed},
    workspace,
};
use tests::{
    older,
    workspace::{run, text},
};

#[test]
fn sets_are_compared_with_their_intervals_and_what_differs_is_told_in_every_format() {
    let workspace = workspace();
    for (set, count, seed) in [("reference", 16, 0), ("one", 16, 1), ("two", 16, 2), ("few", 8, 3)] {
        generate_of_seed(&workspace, set, count, "npz", seed);
    }
    let made = ["--make-reference=reference.npz", "--source=reference"];
    run(&mut evaluate_into(&workspace, "scratch", &made)).expect_code(0);
    for (set, output) in [("one", "all/first"), ("few", "all/first"), ("two", "all/second")] {
        let scored = ["--source", set, "--reference=reference.npz", ALLOWED, "--scores=fid,is,kid"];
        let small = ["--kid-subset-size=4", "--confidence=80", "--resamples=50"];
        run(&mut evaluate_into(&workspace, output, &[&scored[..], &small].concat())).expect_code(0);
    }
    let compare = |arguments: &[&str]| run(workspace.restok(["compare"]).args(arguments));

    let told = compare(&["all/first", "all/second"]).expect_code(0).stdout;
    let rows: Vec<&str> = told.lines().skip(1).take_while(|line| !line.is_empty()).collect();
    assert_eq!(rows.len(), 3, "{told}");
    assert!(rows[2].contains("/few ") && rows[2].contains(" [a]"), "{told}");
    for part in [
        "FID ↓",
        "[a] count: 8 images; the others: 16 images. FID, inception score and KID deviation depend on it, KID does not.",
        "Behind the numbers: confidence intervals of 80 %.",
        "80 % interval of the difference",
        "gfid-adm was not kept (count: 16 images, the protocol says 50,000;",
    ] {
        assert!(told.contains(part), "{part:?} is not in\n{told}");
    }
    // A folder of evaluations is all of them, and what an older version wrote is one.
    assert_eq!(compare(&["all"]).expect_code(0).stdout, told);
    let older = text(&older::written("evaluation"));
    let told = compare(&["all", &older, "--scores=is"]).expect_code(0).stdout;
    assert!(told.contains("/generated ") && !told.contains("FID") && told.contains("12 images; the others"), "{told}");

    let markdown = compare(&["all", "--format=markdown"]).expect_code(0).stdout;
    assert!(markdown.starts_with("| set | images |") && markdown.contains("<sup>a</sup>"), "{markdown}");
    let latex = compare(&["all", "--format=latex"]).expect_code(0).stdout;
    assert!(latex.contains("\\begin{tabular}") && latex.contains("\\textbf{"), "{latex}");
    let csv = compare(&["all", "--format=csv", "--sort=none"]).expect_code(0).stdout;
    assert!(csv.starts_with("set,evaluation,source,protocol,") && csv.lines().count() == 4, "{csv}");
    let json = compare(&["all", "--format=json", "--sort=kid"]).expect_code(0).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("a document");
    let sets = json["sets"].as_array().expect("sets");
    let few = sets.iter().find(|set| set["record"]["images"] == 8).expect("the set of eight images");
    let best: Vec<&str> = few["best"].as_array().expect("names").iter().filter_map(|name| name.as_str()).collect();
    assert!(!best.contains(&"fid") && !best.contains(&"inception_score"), "{few}");
    assert_eq!((json["scores"][0]["name"].as_str(), json["sets"].as_array().map(Vec::len)), (Some("fid"), Some(3)));

    compare(&["all", "nowhere"]).expect_code(42).expect_message(&["nowhere", "no scores are here"]);
    compare(&["all", "--sort=recall"]).expect_code(42).expect_message(&["--sort", "\"recall\"", "fid, is, kid"]);
    compare(&[]).expect_code(42).expect_message(&["EVALUATION as an argument"]);
}
