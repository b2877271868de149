//! A stand-in for the Secrets Store CSI Driver, for the demo and the tests.
