//! The node's subtree as slices of systemd, systemd.slice(5).

use coracle_model::QosClass;
use coracle_systemd::{Active, Property, UnitName};

use crate::kubepods::{holds_more, holds_pods};
use crate::layout::Slice;
use crate::limits::cpu_weight;
use crate::scope::limits;
use crate::{Error, Kubepods, Limits, files};

impl Kubepods {
    /// Has systemd make the slices, or looks after those that are there.
    pub(crate) async fn ensure_slices(
        &self,
        slice: &Slice,
        all: &Limits,
        least: &Limits,
    ) -> Result<(), Error> {
        // Whether there is one at all is said before anything fails for it.
        if let Err(error) = self.systemd().version().await {
            return Err(if error.is_absent() { Error::NoSystemd(error) } else { error.into() });
        }
        // Where it is there it keeps what it has, until it is known which pods there are.
        let burstable = match self.group(&slice.of(QosClass::Burstable).path()).exists() {
            true => Limits::default(),
            false => Limits { cpu_shares: Some(self.requests().shares()), ..Limits::default() },
        };
        for (class, limits, description) in [
            (QosClass::Guaranteed, all, "Pods"),
            (QosClass::Burstable, &burstable, "Burstable pods"),
            (QosClass::BestEffort, least, "Best-effort pods"),
        ] {
            self.ensure_slice(&slice.of(class), limits, description).await?;
        }
        Ok(())
    }

    pub(crate) async fn ensure_slice(
        &self,
        slice: &Slice,
        wanted: &Limits,
        description: &str,
    ) -> Result<(), Error> {
        if self.is_as_wanted(slice, wanted) {
            return Ok(());
        }
        let unit = slice.unit()?;
        let mut properties = vec![Property::Text("Description", description.to_owned())];
        properties.extend(limits(wanted));
        match self.systemd().start_transient(&unit, &properties).await {
            Err(error) if error.is_unit_exists() => {}
            made => return Ok(made?),
        }
        // Made by an agent before, by an administrator, or implied by what lies in it.
        if self.systemd().state(&unit).await?.is_none_or(|state| state.active != Active::Active) {
            self.systemd().start(&unit).await?;
        }
        match limits(wanted).as_slice() {
            [] => Ok(()),
            limits => Ok(self.systemd().set_properties(&unit, limits).await?),
        }
    }

    /// Whether it is there with its weight: most often it is, and an agent that starts has other things to do.
    fn is_as_wanted(&self, slice: &Slice, wanted: &Limits) -> bool {
        let Some(dir) = self.host().v2_mount().map(|mount| mount.join(slice.path())) else { return false };
        match wanted.cpu_shares {
            Some(shares) => {
                files::read_number(&dir.join("cpu.weight")).is_ok_and(|is| is == cpu_weight(shares))
            }
            None => dir.is_dir(),
        }
    }

    /// Has systemd stop the slices, then those above while nothing else is in them; whether the slices are gone. `own`
    /// says that no others' pods can be in them; otherwise they stay while any pod is in one of them, since what lies in
    /// a slice is stopped with it: each unit in it requires it (systemd.slice(5)).
    pub(crate) async fn remove_slices(&self, slice: &Slice, own: bool) -> Result<bool, Error> {
        let Some(mount) = self.host().v2_mount() else { return Ok(true) };
        let classes = [QosClass::BestEffort, QosClass::Burstable].map(|class| slice.of(class));
        if !self.group(&slice.path()).exists() {
            return Ok(true);
        }
        if !own && holds_pods(mount, &slice.path(), &classes.each_ref().map(Slice::path))? {
            return Ok(false);
        }
        for slice in classes.iter().chain([slice]) {
            self.stop_slice(&slice.unit()?).await?;
        }
        let mut above = slice.parent();
        while let Some(slice) = above {
            if holds_more(&mount.join(slice.path()), &[])? {
                break;
            }
            self.stop_slice(&slice.unit()?).await?;
            above = slice.parent();
        }
        Ok(true)
    }

    async fn stop_slice(&self, unit: &UnitName) -> Result<(), Error> {
        match self.systemd().stop(unit).await {
            Err(error) if error.is_absent() => Ok(()),
            stopped => Ok(stopped?),
        }
    }
}
