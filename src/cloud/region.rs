//! Regions, and the hosts that serve them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use http::uri::Scheme;
use url::Url;

use super::Config;
use super::env::Env;
use super::error::{ApiError, Kind};

/// Regions with CSMS, all at `https://kms.<region>.myhuaweicloud.com`
/// (Huawei's Go SDK 0.1.188, `services/csms/v1/region`).
const CSMS: [&str; 30] = [
    "ae-ad-1",
    "af-north-1",
    "af-south-1",
    "ap-southeast-1",
    "ap-southeast-2",
    "ap-southeast-3",
    "ap-southeast-4",
    "ap-southeast-5",
    "cn-east-2",
    "cn-east-3",
    "cn-east-4",
    "cn-east-5",
    "cn-north-1",
    "cn-north-11",
    "cn-north-12",
    "cn-north-2",
    "cn-north-4",
    "cn-north-9",
    "cn-south-1",
    "cn-south-2",
    "cn-southwest-2",
    "cn-southwest-3",
    "la-north-2",
    "la-south-2",
    "me-east-1",
    "my-kualalumpur-1",
    "na-mexico-1",
    "ru-moscow-1",
    "sa-brazil-1",
    "tr-west-1",
];

/// Those of [`CSMS`] without an IAM host of their own (Huawei's Go SDK 0.1.188,
/// `services/iam/v3/region`); the global host serves them.
const WITHOUT_IAM: [&str; 4] = [
    "cn-north-11",
    "cn-southwest-3",
    "ap-southeast-5",
    "af-north-1",
];

/// The IAM host that serves every region.
const GLOBAL_IAM: &str = "https://iam.myhuaweicloud.com";

/// A region's id, such as `cn-north-4`. Any id of the right form is accepted; whether Huawei has
/// it matters only where its endpoint must be guessed. Clones share the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region(Arc<str>);

/// Text that cannot be a region's id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a region id: expected lower-case letters, digits and single dashes, such as cn-north-4"
)]
pub struct InvalidRegion(String);

impl Region {
    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether Huawei's SDKs know it to have CSMS.
    pub fn is_known(&self) -> bool {
        CSMS.contains(&self.as_str())
    }

    /// The known region that it is most likely a misspelling of.
    pub fn nearest_known(&self) -> &'static str {
        let likeness = |known: &str| strsim::jaro_winkler(known, &self.0);
        CSMS.into_iter()
            .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
            .unwrap_or(CSMS[0])
    }
}

impl FromStr for Region {
    type Err = InvalidRegion;

    fn from_str(text: &str) -> Result<Self, InvalidRegion> {
        let part = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let good = text.len() <= 63
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.split('-').all(part);
        if good {
            Ok(Self(text.into()))
        } else {
            // a wrong region is shown, but not a page of it
            Err(InvalidRegion(text.chars().take(64).collect()))
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where CSMS, IAM and the metadata service are.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    csms: Option<String>,
    iam: Option<String>,
    metadata: Url,
    env: Env,
}

impl Endpoints {
    /// Checks the configured ones.
    pub(super) fn new(config: &Config, env: &Env) -> Result<Self, ApiError> {
        for (name, endpoint) in [
            ("--csms-endpoint", &config.csms_endpoint),
            ("--iam-endpoint", &config.iam_endpoint),
        ] {
            if let Some(endpoint) = endpoint {
                base(name, &endpoint.replace("{region}", "region"))?;
            }
        }
        let metadata = config
            .metadata_endpoint
            .as_deref()
            .unwrap_or("http://169.254.169.254");
        Ok(Self {
            csms: config.csms_endpoint.clone(),
            iam: config.iam_endpoint.clone(),
            metadata: base("--metadata-endpoint", metadata)?,
            env: env.clone(),
        })
    }

    /// The base of CSMS's URLs in a region.
    pub(super) fn csms(&self, region: &Region) -> Result<Url, ApiError> {
        if let Some(endpoint) = &self.csms {
            return base("--csms-endpoint", &fill(endpoint, region));
        }
        let variable = format!(
            "HUAWEICLOUD_SDK_REGION_CSMS_{}",
            region.0.replace('-', "_").to_ascii_uppercase()
        );
        if let Some(endpoint) = self.env.get(&variable) {
            // the SDK allows a list, of which the later ones are stand-ins
            let first = endpoint.split(',').next().unwrap_or(endpoint).trim();
            return base(&variable, &with_scheme(first));
        }
        if region.is_known() {
            return base("region", &format!("https://kms.{region}.myhuaweicloud.com"));
        }
        let nearest = region.nearest_known();
        Err(ApiError::local(
            "ResolveEndpoint",
            Kind::Configuration,
            format!(
                "region {region} is not known to have CSMS; the nearest known name is {nearest}. \
                 For a region that is newer than this program set --csms-endpoint or {variable}"
            ),
        ))
    }

    /// The base of IAM's URLs for a region.
    pub(super) fn iam(&self, region: &Region) -> Result<Url, ApiError> {
        if let Some(endpoint) = &self.iam {
            return base("--iam-endpoint", &fill(endpoint, region));
        }
        let variable = "HUAWEICLOUD_SDK_IAM_ENDPOINT";
        if let Some(endpoint) = self.env.get(variable) {
            return base(variable, &with_scheme(endpoint));
        }
        if CSMS.contains(&region.as_str()) && !WITHOUT_IAM.contains(&region.as_str()) {
            return base("region", &format!("https://iam.{region}.myhuaweicloud.com"));
        }
        base("region", GLOBAL_IAM)
    }

    /// The base of the metadata service's URLs.
    pub(super) fn metadata(&self) -> &Url {
        &self.metadata
    }
}

fn fill(endpoint: &str, region: &Region) -> String {
    endpoint.replace("{region}", region.as_str())
}

/// The SDK takes hosts without a scheme.
fn with_scheme(endpoint: &str) -> String {
    if endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("https://{endpoint}")
    }
}

/// Parses an endpoint, which is a scheme and a host and nothing else: a path would be signed
/// otherwise than the service sees it.
fn base(name: &str, endpoint: &str) -> Result<Url, ApiError> {
    let wrong = |why: &str| {
        ApiError::local(
            "ResolveEndpoint",
            Kind::Configuration,
            format!("{name} is not an endpoint: {why}; expected such as https://kms.example.com"),
        )
    };
    let url = Url::parse(endpoint).map_err(|error| wrong(&error.to_string()))?;
    if url.scheme() != Scheme::HTTP.as_str() && url.scheme() != Scheme::HTTPS.as_str() {
        return Err(wrong("its scheme is neither http nor https"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it has no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it holds a user or password"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a path, query or fragment"));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(text: &str) -> Region {
        text.parse().unwrap()
    }

    fn endpoints(config: Config, env: &[(&str, &str)]) -> Result<Endpoints, ApiError> {
        Endpoints::new(&config, &Env::from_pairs(env.iter().copied()))
    }

    #[test]
    fn every_csms_region_has_its_host() {
        let endpoints = endpoints(Config::default(), &[]).unwrap();
        for id in CSMS {
            let url = endpoints.csms(&region(id)).unwrap();
            assert_eq!(url.as_str(), format!("https://kms.{id}.myhuaweicloud.com/"));
            endpoints.iam(&region(id)).unwrap();
        }
    }

    #[test]
    fn regions_of_the_wrong_form_are_refused() {
        for text in [
            "",
            "-",
            "cn--north",
            "CN-NORTH-4",
            "cn_north",
            "a/b",
            "4cn",
            "cn-",
            "é",
            "a.b",
        ] {
            assert!(text.parse::<Region>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_unknown_region_names_the_nearest_and_needs_an_override() {
        let plain = endpoints(Config::default(), &[]).unwrap();
        let error = plain.csms(&region("cn-nort-4")).unwrap_err();
        assert_eq!(error.kind, Kind::Configuration);
        assert!(error.message.contains("cn-north-4"), "{error}");

        let by_env = endpoints(
            Config::default(),
            &[("HUAWEICLOUD_SDK_REGION_CSMS_XX_NEW_1", "kms.new.example, b")],
        )
        .unwrap();
        assert_eq!(
            by_env.csms(&region("xx-new-1")).unwrap().as_str(),
            "https://kms.new.example/"
        );
        let by_flag = endpoints(
            Config {
                csms_endpoint: Some("http://{region}.example:81".into()),
                ..Config::default()
            },
            &[],
        )
        .unwrap();
        assert_eq!(
            by_flag.csms(&region("xx-new-1")).unwrap().as_str(),
            "http://xx-new-1.example:81/"
        );
    }

    #[test]
    fn iam_is_the_regions_own_or_the_global_one_or_the_sdks() {
        let plain = endpoints(Config::default(), &[]).unwrap();
        assert_eq!(
            plain.iam(&region("cn-north-4")).unwrap().as_str(),
            "https://iam.cn-north-4.myhuaweicloud.com/"
        );
        for id in ["cn-north-11", "xx-new-1"] {
            assert_eq!(
                plain.iam(&region(id)).unwrap().as_str(),
                "https://iam.myhuaweicloud.com/"
            );
        }
        let by_env = endpoints(
            Config::default(),
            &[("HUAWEICLOUD_SDK_IAM_ENDPOINT", "http://127.0.0.1:1")],
        )
        .unwrap();
        assert_eq!(
            by_env.iam(&region("cn-north-4")).unwrap().as_str(),
            "http://127.0.0.1:1/"
        );
    }

    #[test]
    fn endpoints_that_are_more_than_a_host_are_refused() {
        for bad in [
            "kms.example",
            "ftp://a",
            "https://u:p@a",
            "https://a/b",
            "https://a?b",
            "http://",
        ] {
            let config = Config {
                csms_endpoint: Some(bad.into()),
                ..Config::default()
            };
            let error = endpoints(config, &[]).unwrap_err();
            assert_eq!(error.kind, Kind::Configuration, "{bad}");
            assert!(error.message.contains("--csms-endpoint"), "{error}");
        }
    }
}
