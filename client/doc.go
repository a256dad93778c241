// Package client is the Go client of Flotilla.
package client
