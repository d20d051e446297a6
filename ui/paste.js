// A pasted image goes where a dropped one goes: into the page's uploader.
if (!window.visionservePastes) {
  window.visionservePastes = true;
  document.addEventListener("paste", (event) => {
    const pasted = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    const input = document.querySelector('[data-testid="stFileUploaderDropzoneInput"]');
    if (pasted.length === 0 || input === null) return;
    event.preventDefault();
    const transfer = new DataTransfer();
    for (const file of pasted) transfer.items.add(file);
    input.files = transfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });
}
