//! Every link in the documentation that leads into this repository has a target: the file exists, and so does
//! the heading. Links to other sites are not followed.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::{Component, Path, PathBuf};

use percent_encoding::percent_decode_str;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// Files and folders to check, relative to the root. Missing ones fail.
const DOCUMENTS: [&str; 7] = [
    "README.md",
    "CHANGELOG.md",
    "docs/src",
    "tests/README.md",
    ".github/SECURITY.md",
    ".github/CONTRIBUTING.md",
    "charts/dew-provider/README.md",
];

/// Links into the published repository are checked like relative ones.
const REPOSITORY: [&str; 3] = [
    "https://github.com/dew-provider/dew-provider/blob/main/",
    "https://github.com/dew-provider/dew-provider/tree/main/",
    "https://raw.githubusercontent.com/dew-provider/dew-provider/main/",
];

/// The book contains only what is below this folder.
const BOOK: &str = "docs/src";

/// One Markdown file: its links, with their lines, and the anchors of its headings.
#[derive(Default)]
struct Document {
    links: Vec<(usize, String)>,
    anchors: BTreeSet<String>,
}

impl Document {
    fn parse(text: &str) -> Self {
        let mut document = Self::default();
        let mut slugs: HashMap<String, usize> = HashMap::new();
        let mut heading: Option<String> = None;
        let options =
            Options::ENABLE_TABLES | Options::ENABLE_FOOTNOTES | Options::ENABLE_STRIKETHROUGH;
        for (event, range) in Parser::new_ext(text, options).into_offset_iter() {
            match event {
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let base = slug(&heading.take().unwrap_or_default());
                    let seen = slugs.entry(base.clone()).or_default();
                    document.anchors.insert(match *seen {
                        0 => base,
                        n => format!("{base}-{n}"),
                    });
                    *seen += 1;
                }
                Event::Text(part) | Event::Code(part) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&part);
                    }
                }
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                    let line = text[..range.start].matches('\n').count() + 1;
                    document.links.push((line, dest_url.into_string()));
                }
                _ => {}
            }
        }
        document
    }
}

/// The anchor of a heading, as GitHub and mdBook derive it.
fn slug(heading: &str) -> String {
    heading
        .trim()
        .chars()
        .filter_map(|c| match c {
            c if c.is_whitespace() => Some('-'),
            c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c.to_ascii_lowercase()),
            _ => None,
        })
        .collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Resolves `.` and `..` without touching the file system; `None` if the path leaves the repository.
fn normalized(path: &Path) -> Option<PathBuf> {
    let mut result = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if !result.pop() {
                    return None;
                }
            }
            Component::Normal(name) => result.push(name),
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(result)
}

/// All Markdown files at or below `path`, relative to the root.
fn markdown(path: &Path) -> Vec<PathBuf> {
    if !root().join(path).is_dir() {
        return vec![path.to_owned()];
    }
    let mut found: Vec<PathBuf> = fs::read_dir(root().join(path))
        .unwrap()
        .map(|entry| path.join(entry.unwrap().file_name()))
        .flat_map(|path| markdown(&path))
        .filter(|path| path.extension().is_some_and(|e| e == "md"))
        .collect();
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What is wrong with a link in `from`, if anything.
fn broken(from: &Path, link: &str) -> Option<String> {
    let published = REPOSITORY.iter().find_map(|base| link.strip_prefix(base));
    let elsewhere = ["https://", "http://", "mailto:"];
    if published.is_none() && elsewhere.iter().any(|scheme| link.starts_with(scheme)) {
        return None;
    }
    let (path, anchor) = match published.unwrap_or(link).split_once('#') {
        Some((path, anchor)) => (path, Some(anchor)),
        None => (published.unwrap_or(link), None),
    };
    let path = percent_decode_str(path).decode_utf8_lossy();
    let target = match (published, path.as_ref()) {
        (Some(_), path) => normalized(Path::new(path)),
        (None, "") => Some(from.to_owned()),
        (None, path) => normalized(&from.parent().unwrap_or(Path::new("")).join(path)),
    };
    let Some(target) = target else {
        return Some("leads out of the repository".to_owned());
    };
    if !root().join(&target).exists() {
        return Some(format!("{} does not exist", target.display()));
    }
    if published.is_none() && from.starts_with(BOOK) && !target.starts_with(BOOK) {
        return Some(format!(
            "the book has no {}: link to {}",
            target.display(),
            REPOSITORY[0]
        ));
    }
    let anchor = anchor?;
    // Lines of a source file, as in `#L10`, are not checked.
    if target.extension().is_none_or(|e| e != "md") {
        return None;
    }
    let anchors = Document::parse(&read(&target)).anchors;
    (!anchors.contains(anchor)).then(|| format!("{} has no heading #{anchor}", target.display()))
}

#[test]
fn links_have_targets() {
    let mut problems = Vec::new();
    let mut checked = 0;
    for file in DOCUMENTS.iter().flat_map(|path| markdown(Path::new(path))) {
        for (line, link) in Document::parse(&read(&file)).links {
            checked += 1;
            if let Some(problem) = broken(&file, &link) {
                problems.push(format!("{}:{line}: {link}: {problem}", file.display()));
            }
        }
    }
    assert!(checked > 10, "only {checked} links found");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// mdBook leaves out files that SUMMARY.md does not list, and creates those that do not exist.
#[test]
fn the_summary_lists_every_chapter() {
    let summary = Path::new(BOOK).join("SUMMARY.md");
    let listed: BTreeSet<PathBuf> = Document::parse(&read(&summary))
        .links
        .into_iter()
        .filter_map(|(_, link)| normalized(&Path::new(BOOK).join(link)))
        .collect();
    let chapters: BTreeSet<PathBuf> = markdown(Path::new(BOOK))
        .into_iter()
        .filter(|path| *path != summary)
        .collect();
    assert_eq!(listed, chapters);
}

#[test]
fn slugs_are_those_of_github_and_mdbook() {
    let text = "# `serve` & its flags: v1.0\n## Twice\n## Twice\n## a_b – c\n";
    let anchors = Document::parse(text).anchors;
    let expected = ["serve--its-flags-v10", "twice", "twice-1", "a_b--c"];
    assert_eq!(anchors, expected.map(str::to_owned).into());
}
