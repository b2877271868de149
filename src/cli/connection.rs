//! How a command reaches Huawei Cloud, and as whom.

use anyhow::{Result, anyhow};
use clap::Args;

use super::serve::CloudArgs;
use crate::cloud::{Caller, Cloud, CloudConfig, Region, Turn};
use crate::telemetry::metrics::CloudMetrics;
use crate::util::clock::{Clock, Jitter};
use crate::util::env::Env;

/// Flags of the commands that call Huawei Cloud for their user.
#[derive(Args, Clone, Debug)]
pub struct ConnectionArgs {
    /// Region of the secrets and keys, such as cn-north-4
    #[arg(long, env = "DEW_REGION", global = true)]
    pub region: Option<Region>,

    /// Project ID; looked up in IAM if not set
    #[arg(long, env = "DEW_PROJECT_ID", value_name = "ID", global = true)]
    pub project_id: Option<String>,

    /// How to reach Huawei Cloud
    #[command(flatten)]
    pub cloud: CloudArgs,
}

impl ConnectionArgs {
    /// A client, and the caller with the credentials of the process.
    ///
    /// # Errors
    /// If no region is set, or an endpoint or the credentials cannot be used.
    pub fn connect(&self) -> Result<(Cloud, Caller)> {
        let env = Env::from_process();
        let (clock, jitter) = (Clock::system(), Jitter::from_system());
        let config = CloudConfig {
            project_setting: "--project-id or DEW_PROJECT_ID",
            ..self.cloud.clone().into()
        };
        let cloud = Cloud::new(config, &env, clock, jitter, CloudMetrics::default())?;
        let region = self.region.clone();
        let region = region
            .ok_or_else(|| anyhow!("no region: set --region or DEW_REGION, such as cn-north-4"))?;
        let caller = Caller {
            region,
            project: self.project_id.clone(),
            credentials: cloud.own_credentials(&env, None)?,
            turn: Turn::default(),
        };
        Ok((cloud, caller))
    }
}
