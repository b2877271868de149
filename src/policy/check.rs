//! What the rules allow.

use std::fmt;

use super::glob::Glob;
use super::problems::PolicyProblem;
use super::rule::Rule;
use super::yaml;

/// Maximum number of secrets that a denial names. With 64 bytes each, for two regions, the text stays below 4 KiB.
const MAX_NAMED: usize = 10;

/// Where secrets are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The region; `None` if it is not known, as in `lint`, and then any rule's regions fit.
    pub region: Option<&'a str>,
    /// The project; `None` if it follows from the credentials, and then only rules without projects fit.
    pub project: Option<&'a str>,
}

impl<'a> Place<'a> {
    /// A known region.
    pub fn new(region: &'a str, project: Option<&'a str>) -> Self {
        Self {
            region: Some(region),
            project,
        }
    }
}

/// The policy. A request is allowed if one rule allows its namespace, secret, region and project.
#[derive(Debug)]
pub struct Policy {
    /// `None` allows everything.
    rules: Option<Vec<Rule>>,
}

impl Policy {
    /// Allows everything: without a policy, only the ServiceAccounts' lists count.
    pub fn unrestricted() -> Self {
        Self { rules: None }
    }

    /// Reads the text of a policy file.
    ///
    /// # Errors
    /// The problems of the file, in the order of their lines.
    pub fn parse(text: &str) -> Result<Self, Vec<PolicyProblem>> {
        let rules = yaml::parse(text)?;
        Ok(Self { rules: Some(rules) })
    }

    /// Whether there are rules.
    pub fn is_restricted(&self) -> bool {
        self.rules.is_some()
    }

    /// The number of rules.
    pub fn len(&self) -> usize {
        self.rules.as_ref().map_or(0, Vec::len)
    }

    /// Whether there are no rules: nothing is allowed if the policy is restricted, else everything.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a namespace may use a secret at a place.
    pub fn allows(&self, namespace: &str, place: Place<'_>, secret: &str) -> bool {
        self.check(namespace, place, [secret]).is_ok()
    }

    /// Checks which of the secrets a namespace may use at a place.
    ///
    /// # Errors
    /// Names those that it may not.
    pub fn check<'a>(
        &self,
        namespace: &str,
        place: Place<'_>,
        secrets: impl IntoIterator<Item = &'a str>,
    ) -> Result<(), Denial> {
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        let fits =
            |globs: &Option<Vec<Glob>>, name: Option<&str>, unknown: bool| match (globs, name) {
                (None, _) => true,
                (Some(_), None) => unknown,
                (Some(globs), Some(name)) => any(globs, name),
            };
        // `*` would match an empty one as well.
        let of_namespace = rules
            .iter()
            .filter(|rule| !namespace.is_empty() && any(&rule.namespaces, namespace));
        let in_region = of_namespace
            .clone()
            .filter(|rule| fits(&rule.regions, place.region, true));
        let in_region: Vec<&Rule> = in_region.collect();
        let mut part = DeniedPart::Project;
        let mut denied = DeniedSecrets::default();
        let mut without_project = DeniedSecrets::default();
        for secret in secrets {
            let mut naming = in_region
                .iter()
                .filter(|rule| any(&rule.secrets, secret))
                .peekable();
            if naming.peek().is_none() {
                let is_named = of_namespace.clone().any(|rule| any(&rule.secrets, secret));
                part = part.min(match is_named {
                    true => DeniedPart::Region,
                    false => DeniedPart::Secret,
                });
                denied.add(secret);
            } else if !naming.any(|rule| fits(&rule.projects, place.project, false)) {
                match place.project {
                    None => without_project.add(secret),
                    Some(_) => denied.add(secret),
                }
            }
        }
        if denied.names.is_empty() && without_project.names.is_empty() {
            return Ok(());
        }
        Err(Denial {
            namespace: namespace.to_owned(),
            region: place.region.map(ToOwned::to_owned),
            project: place.project.map(ToOwned::to_owned),
            part,
            denied,
            without_project,
        })
    }
}

fn any(globs: &[Glob], name: &str) -> bool {
    globs.iter().any(|glob| glob.matches(name))
}

/// Secrets that are not allowed; their names come from the class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DeniedSecrets {
    names: Vec<String>,
    more: usize,
}

impl DeniedSecrets {
    fn add(&mut self, name: &str) {
        if self.names.len() < MAX_NAMED {
            self.names.push(name.to_owned());
        } else {
            self.more += 1;
        }
    }

    /// One of the two words.
    fn number<'a>(&self, one: &'a str, many: &'a str) -> &'a str {
        if self.names.len() == 1 { one } else { many }
    }
}

impl fmt::Display for DeniedSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.number("object", "objects"))?;
        for (index, name) in self.names.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{name:?}")?;
        }
        if self.more > 0 {
            write!(f, " and {} more", self.more)?;
        }
        Ok(())
    }
}

/// The part of a request that no rule allows together with the parts before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeniedPart {
    /// The secret: no rule allows the namespace to use it anywhere.
    Secret,
    /// The region: rules allow others.
    Region,
    /// The project: rules allow others in this region.
    Project,
}

/// What the policy does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    namespace: String,
    region: Option<String>,
    project: Option<String>,
    part: DeniedPart,
    denied: DeniedSecrets,
    /// Secrets that are allowed in certain projects, while the request names none.
    without_project: DeniedSecrets,
}

impl Denial {
    /// Whether a project in the request might be all that is missing.
    pub fn needs_only_project(&self) -> bool {
        self.denied.names.is_empty()
    }

    /// The first part that is denied, for any of the secrets.
    pub fn part(&self) -> DeniedPart {
        self.part
    }

    fn place(&self) -> String {
        let region = self.region.as_ref().map(|r| format!(" in region {r}"));
        let project = self.project.as_ref().map(|p| format!(", project {p}"));
        format!(
            "{}{}",
            region.unwrap_or_default(),
            project.unwrap_or_default()
        )
    }
}

/// The chart's ValidatingAdmissionPolicy gives the same text: charts/dew-provider/templates/admission.yaml.
impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, place) = (&self.namespace, self.place());
        let denied = &self.denied;
        if !denied.names.is_empty() {
            write!(
                f,
                "{denied}: no rule of the operator's policy allows namespace {namespace:?} to use {}{place}: \
                 ask the operator to add {} to the policy (chart value policy)",
                denied.number("this secret", "these secrets"),
                denied.number("it", "them"),
            )?;
        }
        let denied = &self.without_project;
        if denied.names.is_empty() {
            return Ok(());
        }
        if !self.denied.names.is_empty() {
            f.write_str("; ")?;
        }
        write!(
            f,
            "{denied}: the operator's policy allows namespace {namespace:?} to use {}{place} only in certain \
             projects: set projectId, which does not apply to failoverRegion, or ask the operator for a rule \
             without projects (chart value policy)",
            denied.number("this secret", "these secrets"),
        )
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
