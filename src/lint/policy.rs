//! Checks a policy file, and the classes in manifests against it.

use super::manifest::{ClassManifest, Scalar};
use crate::class::objects::Objects;
use crate::cloud::Region;
use crate::policy::{DeniedPart, Place, Policy, PolicyProblem};

/// What classes are checked against: a policy, and the settings of the provider that it is for.
#[derive(Debug)]
pub struct PolicyCheck {
    policy: Policy,
    /// `--region` of the provider, if it is known.
    region: Option<Region>,
    /// `--project-id` of the provider, if it is known.
    project: Option<String>,
}

/// What the policy does not allow: line, the parameter that fails, the reason, and whether that does not depend
/// on unknown settings of the provider.
pub(super) struct PolicyFinding {
    pub(super) line: u64,
    pub(super) parameter: &'static str,
    pub(super) reason: String,
    pub(super) is_certain: bool,
}

impl PolicyCheck {
    /// Reads a policy; `region` and `project` are those of the provider.
    ///
    /// # Errors
    /// The problems of the policy.
    pub fn new(
        text: &str,
        region: Option<Region>,
        project: Option<String>,
    ) -> Result<Self, Vec<PolicyProblem>> {
        Ok(Self {
            policy: Policy::parse(text)?,
            region,
            project,
        })
    }

    /// Checks each object of a class, in the region and in the failover region.
    pub(super) fn check(&self, class: &ClassManifest, objects: &Objects) -> Vec<PolicyFinding> {
        let Some(list) = class.parameter("objects") else {
            return Vec::new();
        };
        let namespace = &class.header.namespace;
        let set = |name| {
            let parameter: Option<&Scalar> = class.parameter(name);
            parameter
                .map(|p| p.value.as_str())
                .filter(|v| !v.is_empty())
        };
        let home = self.region.as_ref().map(Region::as_str);
        let region = set("region").or(home);
        let project = set("projectId").or_else(|| {
            self.project
                .as_deref()
                .filter(|_| region.is_some() && region == home)
        });
        let failover = set("failoverRegion").map(|region| Place::new(region, None));
        let primary = Place { region, project };
        let places = [Some((primary, false)), failover.map(|place| (place, true))];
        let mut findings = Vec::new();
        for (place, is_failover) in places.into_iter().flatten() {
            for object in &objects.list {
                let checked = self.policy.check(namespace, place, [object.name.as_str()]);
                let Err(denial) = checked else { continue };
                let parameter = match denial.part() {
                    // It is so in every region, and has been reported.
                    DeniedPart::Secret if is_failover => continue,
                    DeniedPart::Secret => "objects",
                    // No project that the class sets applies there.
                    _ if is_failover => "failoverRegion",
                    DeniedPart::Region => "region",
                    DeniedPart::Project => "projectId",
                };
                let line = match class.parameter(parameter) {
                    Some(scalar) if parameter != "objects" => scalar.line,
                    _ => list.inner_line(object.line),
                };
                findings.push(PolicyFinding {
                    line,
                    parameter,
                    reason: denial.to_string(),
                    // The provider may have a project for the region.
                    is_certain: is_failover
                        || self.region.is_some()
                        || !denial.needs_only_project(),
                });
            }
        }
        findings
    }
}
