package controller

// Everywhere is what a controller declares besides its Reads and Writes when it
// has to do with kinds that nobody can name beforehand: those made of definitions
// as well.
type Everywhere interface {
	// Everywhere says whether it reads every kind, and which parts it writes of
	// every kind.
	Everywhere() (reads bool, writes []string)
}
