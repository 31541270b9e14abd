package flowlog

// packedTexts are columns of texts, of which a row has all in one number.
type packedTexts struct {
	columns [5]*chunk // nil where the file does not have them
	shifts  [6]uint   // where the texts of each begin in a number, and the last end
	keys    []uint64  // of the batch
	areKeys bool
}

// pack makes the numbers of n rows, with so many bits for the texts of each column. A
// number is negative where a text is missing; all need less than 64 bits.
func (p *packedTexts) pack(n int, widths [5]uint) error {
	p.keys, p.areKeys = resized(p.keys, n), true
	clear(p.keys)
	for i, k := range p.columns {
		p.shifts[i+1] = p.shifts[i] + widths[i]
		if k == nil {
			continue
		}
		if err := k.pack(p.keys, p.shifts[i]); err != nil {
			return k.failed(err)
		}
	}
	return nil
}

// settle has columns say what rows have in place of numbers.
func (p *packedTexts) settle() error {
	p.areKeys = false
	for _, k := range p.columns {
		if k == nil {
			continue
		}
		if err := k.settle(); err != nil {
			return k.failed(err)
		}
	}
	return nil
}

// textsAt returns the numbers of a row's texts.
func (p *packedTexts) textsAt(row int) (texts [5]int32) {
	for i, k := range p.columns {
		switch {
		case k == nil:
		case p.areKeys:
			texts[i] = int32(p.keys[row] >> (p.shifts[i] & 63) & (1<<(p.shifts[i+1]-p.shifts[i]) - 1))
		default:
			texts[i] = k.codes[row]
		}
	}
	return texts
}

// tell has columns say what a row has, if they do not.
func (p *packedTexts) tell(row int) {
	for i, text := range p.textsAt(row) {
		if k := p.columns[i]; k != nil {
			k.codes[row] = text
		}
	}
}
