package flow

// hash mixes text into seed: FNV-1a, and then a finaliser that spreads what FNV
// leaves in the low bits, for a hand is dealt out of all of them.
func hash(seed uint64, text string) uint64 {
	h := seed ^ 14695981039346656037
	for i := range len(text) {
		h = (h ^ uint64(text[i])) * 1099511628211
	}
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}

// deal appends to hand size different numbers below deck, chosen by h: the same h
// is always dealt the same hand, and two flows rarely share all of theirs. size
// is at most deck.
func deal(hand []int, h uint64, deck, size int) []int {
	for i := range size {
		left := uint64(deck - i)
		card := int(h % left)
		h /= left
		hand = place(hand, card)
	}
	return hand
}

// place turns card, which counts only cards that are still in the deck, into a
// card's number, and keeps hand sorted.
func place(hand []int, card int) []int {
	at := 0
	for at < len(hand) && hand[at] <= card {
		card++
		at++
	}
	hand = append(hand, 0)
	copy(hand[at+1:], hand[at:])
	hand[at] = card
	return hand
}
