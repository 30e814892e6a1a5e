package main

import "encoding/binary"

const elfMachine = 62 // EM_X86_64

// callLoop is the loop over the list of system calls. Entries are 72 bytes: the
// number, six arguments, and a message for the descriptor report
// when the call fails.
func callLoop(report int) []byte {
	code := []byte{0x48, 0xbb} // mov rbx, list
	code = binary.LittleEndian.AppendUint64(code, dataAddress)
	return append(code,
		// next:
		0x48, 0x8b, 0x03, // mov rax, [rbx]
		0x48, 0x8b, 0x7b, 0x08, // mov rdi, [rbx+8]
		0x48, 0x8b, 0x73, 0x10, // mov rsi, [rbx+16]
		0x48, 0x8b, 0x53, 0x18, // mov rdx, [rbx+24]
		0x4c, 0x8b, 0x53, 0x20, // mov r10, [rbx+32]
		0x4c, 0x8b, 0x43, 0x28, // mov r8, [rbx+40]
		0x4c, 0x8b, 0x4b, 0x30, // mov r9, [rbx+48]
		0x0f, 0x05, // syscall
		0x48, 0x85, 0xc0, // test rax, rax
		0x78, 0x06, // js failed
		0x48, 0x83, 0xc3, 0x48, // add rbx, 72
		0xeb, 0xd8, // jmp next
		// failed:
		0xb8, 1, 0, 0, 0, // mov eax, write
		0xbf, byte(report), byte(report>>8), 0, 0, // mov edi, report
		0x48, 0x8b, 0x73, 0x38, // mov rsi, [rbx+56]
		0x48, 0x8b, 0x53, 0x40, // mov rdx, [rbx+64]
		0x0f, 0x05, // syscall
		0xb8, 231, 0, 0, 0, // mov eax, exit_group
		0xbf, 126, 0, 0, 0, // mov edi, 126
		0x0f, 0x05, // syscall
	)
}
