//! The endpoints of CSMS, KMS, IAM and the metadata service.

use http::uri::Scheme;
use url::Url;

use super::config::CloudConfig;
use super::error::{ApiError, ErrorKind};
use super::region::Region;
use crate::util::env::Env;

/// The IAM host that serves every region.
const GLOBAL_IAM: &str = "https://iam.myhuaweicloud.com";

/// The endpoints of CSMS, KMS, IAM and the metadata service.
#[derive(Clone, Debug)]
pub(super) struct Endpoints {
    csms: Option<String>,
    kms: Option<String>,
    iam: Option<String>,
    metadata: Url,
    env: Env,
}

impl Endpoints {
    /// Validates the configured endpoints.
    pub(super) fn new(config: &CloudConfig, env: &Env) -> Result<Self, ApiError> {
        for (name, endpoint) in [
            ("--csms-endpoint", &config.csms_endpoint),
            ("--kms-endpoint", &config.kms_endpoint),
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
            kms: config.kms_endpoint.clone(),
            iam: config.iam_endpoint.clone(),
            metadata: base("--metadata-endpoint", metadata)?,
            env: env.clone(),
        })
    }

    /// The base URL of CSMS in a region.
    pub(super) fn csms(&self, region: &Region) -> Result<Url, ApiError> {
        if let Some(endpoint) = &self.csms {
            return base("--csms-endpoint", &fill(endpoint, region));
        }
        if let Some(url) = self.of_sdk("CSMS", region)? {
            return Ok(url);
        }
        own_host(region, "CSMS", "--csms-endpoint")
    }

    /// The base URL of KMS in a region. It has the host of CSMS, so that the settings of CSMS are also those of
    /// KMS unless KMS has its own.
    pub(super) fn kms(&self, region: &Region) -> Result<Url, ApiError> {
        if let Some(endpoint) = &self.kms {
            return base("--kms-endpoint", &fill(endpoint, region));
        }
        if let Some(url) = self.of_sdk("KMS", region)? {
            return Ok(url);
        }
        if let Some(endpoint) = &self.csms {
            return base("--csms-endpoint", &fill(endpoint, region));
        }
        if let Some(url) = self.of_sdk("CSMS", region)? {
            return Ok(url);
        }
        own_host(region, "KMS", "--kms-endpoint")
    }

    /// The endpoint that the variable of Huawei's SDKs sets for a service in a region.
    fn of_sdk(&self, service: &str, region: &Region) -> Result<Option<Url>, ApiError> {
        let variable = sdk_variable(service, region);
        let Some(endpoint) = self.env.get(&variable) else {
            return Ok(None);
        };
        // The SDK accepts a list whose later entries are fallbacks.
        let first = endpoint.split(',').next().unwrap_or(endpoint).trim();
        base(&variable, &with_scheme(first)).map(Some)
    }

    /// The base URL of IAM for a region.
    pub(super) fn iam(&self, region: &Region) -> Result<Url, ApiError> {
        if let Some(endpoint) = &self.iam {
            return base("--iam-endpoint", &fill(endpoint, region));
        }
        let variable = "HUAWEICLOUD_SDK_IAM_ENDPOINT";
        if let Some(endpoint) = self.env.get(variable) {
            return base(variable, &with_scheme(endpoint));
        }
        if region.has_iam() {
            return base("region", &format!("https://iam.{region}.myhuaweicloud.com"));
        }
        base("region", GLOBAL_IAM)
    }

    /// The base URL of the metadata service.
    pub(super) fn metadata(&self) -> &Url {
        &self.metadata
    }
}

fn sdk_variable(service: &str, region: &Region) -> String {
    let region = region.as_str().replace('-', "_").to_ascii_uppercase();
    format!("HUAWEICLOUD_SDK_REGION_{service}_{region}")
}

/// The host that CSMS and KMS share in a region.
fn own_host(region: &Region, service: &str, flag: &str) -> Result<Url, ApiError> {
    if region.is_known() {
        return base("region", &format!("https://kms.{region}.myhuaweicloud.com"));
    }
    let nearest = region.nearest_known();
    let variable = sdk_variable(service, region);
    Err(ApiError::local(
        "ResolveEndpoint",
        ErrorKind::Configuration,
        format!(
            "region {region} is not known to have {service}; did you mean {nearest}? For a region that is \
             newer than this release, set {flag} or {variable}"
        ),
    ))
}

fn fill(endpoint: &str, region: &Region) -> String {
    endpoint.replace("{region}", region.as_str())
}

/// The SDK accepts hosts without a scheme.
fn with_scheme(endpoint: &str) -> String {
    if endpoint.contains("://") {
        endpoint.to_owned()
    } else {
        format!("https://{endpoint}")
    }
}

/// Parses an endpoint, which has a scheme and a host only: with a path, the signature would not match
/// what the service sees.
fn base(name: &str, endpoint: &str) -> Result<Url, ApiError> {
    let wrong = |why: &str| {
        ApiError::local(
            "ResolveEndpoint",
            ErrorKind::Configuration,
            format!(
                "{name} is not a valid endpoint: {why}; expected a URL such as https://kms.example.com"
            ),
        )
    };
    if endpoint.trim().is_empty() {
        return Err(wrong("it is empty"));
    }
    let url = Url::parse(endpoint).map_err(|error| wrong(url_reason(&error)))?;
    if url.scheme() != Scheme::HTTP.as_str() && url.scheme() != Scheme::HTTPS.as_str() {
        return Err(wrong("the scheme must be http or https"));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it has no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it contains a user or password"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("it has a path, query or fragment"));
    }
    Ok(url)
}

/// Why a text is not a URL. The library's reasons are those of the standard for URLs.
fn url_reason(error: &url::ParseError) -> &'static str {
    use url::ParseError;
    match error {
        ParseError::RelativeUrlWithoutBase => "it has no scheme, such as https://",
        ParseError::EmptyHost => "it has no host",
        ParseError::InvalidPort => "the port is not a number up to 65535",
        ParseError::InvalidIpv4Address | ParseError::InvalidIpv6Address => {
            "the host is not a valid IP address"
        }
        ParseError::IdnaError | ParseError::InvalidDomainCharacter => {
            "the host contains an invalid character"
        }
        _ => "it is not a URL",
    }
}

#[cfg(test)]
mod tests {
    use super::super::region::WITH_CSMS;
    use super::*;

    fn region(text: &str) -> Region {
        text.parse().unwrap()
    }

    fn endpoints(config: CloudConfig, env: &[(&str, &str)]) -> Result<Endpoints, ApiError> {
        Endpoints::new(&config, &Env::from_pairs(env.iter().copied()))
    }

    #[test]
    fn every_csms_region_has_its_host() {
        let endpoints = endpoints(CloudConfig::default(), &[]).unwrap();
        for id in WITH_CSMS {
            let url = endpoints.csms(&region(id)).unwrap();
            assert_eq!(url.as_str(), format!("https://kms.{id}.myhuaweicloud.com/"));
            endpoints.iam(&region(id)).unwrap();
        }
    }

    #[test]
    fn an_unknown_region_names_the_nearest_and_needs_an_override() {
        let plain = endpoints(CloudConfig::default(), &[]).unwrap();
        let error = plain.csms(&region("cn-nort-4")).unwrap_err();
        assert_eq!(error.kind, ErrorKind::Configuration);
        assert!(error.message.contains("cn-north-4"), "{error}");

        let by_env = endpoints(
            CloudConfig::default(),
            &[("HUAWEICLOUD_SDK_REGION_CSMS_XX_NEW_1", "kms.new.example, b")],
        )
        .unwrap();
        assert_eq!(
            by_env.csms(&region("xx-new-1")).unwrap().as_str(),
            "https://kms.new.example/"
        );
        let by_flag = endpoints(
            CloudConfig {
                csms_endpoint: Some("http://{region}.example:81".into()),
                ..CloudConfig::default()
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
        let plain = endpoints(CloudConfig::default(), &[]).unwrap();
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
            CloudConfig::default(),
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
            let config = CloudConfig {
                csms_endpoint: Some(bad.into()),
                ..CloudConfig::default()
            };
            let error = endpoints(config, &[]).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Configuration, "{bad}");
            assert!(error.message.contains("--csms-endpoint"), "{error}");
        }
    }

    #[test]
    fn kms_has_the_endpoint_of_csms_unless_it_has_its_own() {
        let with = |csms: Option<&str>, kms: Option<&str>, env: &[(&str, &str)]| {
            let config = CloudConfig {
                csms_endpoint: csms.map(Into::into),
                kms_endpoint: kms.map(Into::into),
                ..CloudConfig::default()
            };
            let endpoints = endpoints(config, env).unwrap();
            endpoints.kms(&region("xx-new-1")).map(String::from)
        };
        let csms = Some("http://{region}.csms");
        let own_variable = ("HUAWEICLOUD_SDK_REGION_KMS_XX_NEW_1", "kms.sdk");
        let csms_variable = ("HUAWEICLOUD_SDK_REGION_CSMS_XX_NEW_1", "csms.sdk");
        let both = [own_variable, csms_variable];
        for (found, expected) in [
            (
                with(csms, Some("http://{region}.kms"), &both),
                "http://xx-new-1.kms/",
            ),
            (with(csms, None, &both), "https://kms.sdk/"),
            (with(csms, None, &[csms_variable]), "http://xx-new-1.csms/"),
            (with(None, None, &[csms_variable]), "https://csms.sdk/"),
        ] {
            assert_eq!(found.unwrap(), expected);
        }
        let error = with(None, None, &[]).unwrap_err();
        assert!(error.message.contains("have KMS"), "{error}");
        assert!(
            error
                .message
                .contains("--kms-endpoint or HUAWEICLOUD_SDK_REGION_KMS_XX_NEW_1")
        );
        let known = endpoints(CloudConfig::default(), &[]).unwrap();
        let known = known.kms(&region("cn-north-4")).unwrap();
        assert_eq!(known.as_str(), "https://kms.cn-north-4.myhuaweicloud.com/");
    }
}
