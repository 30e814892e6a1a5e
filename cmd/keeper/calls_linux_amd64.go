package main

import "encoding/binary"

const elfMachine = 62 // EM_X86_64

// callLoop is the loop over the list of system calls. Entries are 80 bytes: the
// number, six arguments, a message with its length, and flags. The message is for the descriptor report
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
		0x48, 0x8b, 0x4b, 0x48, // mov rcx, [rbx+72]
		0xf6, 0xc1, mayFail, // test cl, mayFail
		0x75, 0x0f, // jnz on
		0x48, 0x85, 0xc0, // test rax, rax
		0x78, 0x10, // js failed
		0xf6, 0xc1, isAbsolute, // test cl, isAbsolute
		0x74, 0x05, // jz on
		0x80, 0x3f, '/', // cmp byte [rdi], '/'
		0x75, 0x06, // jne failed
		// on:
		0x48, 0x83, 0xc3, 0x50, // add rbx, 80
		0xeb, 0xc5, // jmp next
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
