//! The device manager: which plugins there are, what devices they have, which container was given which.
