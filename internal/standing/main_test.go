package standing_test

import (
	"os"
	"testing"

	"github.com/weir-policy/weir/internal/testkit"
)

func TestMain(m *testing.M) { os.Exit(testkit.Properties(m, 0)) }
