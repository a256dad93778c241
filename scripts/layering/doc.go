// Package layering holds no code, only the test that keeps the packages of this module importing in one direction.
package layering
