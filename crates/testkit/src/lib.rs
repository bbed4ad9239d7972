//! Real servers, a cutting proxy, simulated time and drop counters for the tests of overdrive.
