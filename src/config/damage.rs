//! The flag that says what to do with a damaged store.

use clap::{Args, ValueEnum};

/// Flags of damage.
#[derive(Clone, Copy, Debug, Args)]
pub struct DamageArgs {
    /// What to do when the index or the log is damaged: set the damaged part aside and go on with all that
    /// can be read, or refuse to start. Nothing is ever removed.
    #[arg(long, value_name = "WHAT", env = "LOOKBACK_ON_DAMAGE", default_value = "set-aside")]
    pub on_damage: OnDamage,
}

/// What to do with a damaged store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnDamage {
    /// Go on without the damaged part, which is kept in the directory quarantine.
    SetAside,
    /// Do not start.
    Refuse,
}

impl From<OnDamage> for lookback_storage::OnDamage {
    fn from(what: OnDamage) -> Self {
        match what {
            OnDamage::SetAside => Self::SetAside,
            OnDamage::Refuse => Self::Refuse,
        }
    }
}
