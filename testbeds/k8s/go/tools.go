//go:build tools

// Package tools names what build.sh builds of other modules, so that go.mod has what these need.
package tools

import (
	_ "k8s.io/kubernetes/test/e2e"
	_ "k8s.io/kubernetes/test/images/agnhost"
)
